//! What crosses crates, and the whole shop.
