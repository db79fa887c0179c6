//! The shop: inventory.
