//! The shop: catalog.
