//! The shop: ordering.
