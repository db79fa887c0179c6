//! The shop: gateway.
