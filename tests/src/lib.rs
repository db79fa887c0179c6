//! What crosses crates, and the whole shop.
//!
//! The tests stand in `tests/it/`, one file per behaviour. This library holds what they
//! share with the programs of `cargo xtask torture`.

#[cfg(feature = "torture")]
pub mod torture;
