//! The error of a call that took too long.
//!
//! It says how long was waited, because several timeouts often stand in one
//! stack and the number tells which one it was.

use std::time::Duration;

/// The call did not answer in time and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// The time that was waited.
    pub after: Duration,
}

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.after)
    }
}

impl std::error::Error for Elapsed {}
