//! What crosses crates, and the whole shop.
//!
//! The tests stand in `tests/it/`, one file per behaviour. This library is empty:
//! cargo wants one, and nothing depends on it.
