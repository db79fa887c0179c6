//! The error of a call that found no place.
//!
//! The time that was waited tells a full queue (zero) from a slow callee.

use std::time::Duration;

/// All places were taken; the call never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkheadFull {
    /// How many calls may be under way.
    pub limit: usize,
    /// How long was waited for a place. Zero if the queue was full too.
    pub waited: Duration,
}

impl std::fmt::Display for BulkheadFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "all {} places are taken, waited {:?}", self.limit, self.waited)
    }
}

impl std::error::Error for BulkheadFull {}
