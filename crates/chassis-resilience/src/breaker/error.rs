//! The errors of the breaker: a refused call, and settings that make no sense.
//!
//! A refused call carries when to come back, so that an edge can answer with
//! `Retry-After` and a balancer can say when all its endpoints are shut.

use std::time::Duration;

/// The call was refused and never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitOpen {
    /// When a call may be let through again. Zero means at any moment: probes
    /// are under way. A breaker that is forced open answers its longest open time.
    pub retry_in: Duration,
}

impl std::fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "circuit open, next try in {:?}", self.retry_in)
    }
}

impl std::error::Error for CircuitOpen {}

/// A setting is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSettings {
    /// The name of the setting.
    pub setting: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl std::fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} must be {}", self.setting, self.expected)
    }
}

impl std::error::Error for InvalidSettings {}
