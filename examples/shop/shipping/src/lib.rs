//! The shop: shipping.
