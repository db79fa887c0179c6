//! The shop: contracts.
