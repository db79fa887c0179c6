//! The error of a call above the limit.
//!
//! It carries when the next call would pass, which is what a `Retry-After`
//! header wants to know.

use std::time::Duration;

/// The limit was reached; the call never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// The next call passes after this time, if no other takes its place.
    pub retry_in: Duration,
}

impl std::fmt::Display for RateLimited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rate limit reached, next call in {:?}", self.retry_in)
    }
}

impl std::error::Error for RateLimited {}
