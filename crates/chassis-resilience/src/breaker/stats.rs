//! What a breaker tells about itself.
//!
//! Plain numbers, read when somebody asks: this crate knows no metrics library.

use std::sync::Arc;

use super::CircuitOpen;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Every call goes through and is judged.
    Closed,
    /// No call goes through. It ends when a call comes after the open time.
    Open,
    /// A few probes go through.
    HalfOpen,
    /// Held open by hand, whatever the answers would be.
    ForcedOpen,
    /// Every call goes through and nothing is judged.
    Disabled,
    /// Every call goes through; the rates are measured, but never open the circuit.
    MetricsOnly,
}

impl State {
    /// The name in metrics and logs: `closed`, `open`, `half_open`, …
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::ForcedOpen => "forced_open",
            State::Disabled => "disabled",
            State::MetricsOnly => "metrics_only",
        }
    }
}

/// A change of state, as a hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The name of the breaker.
    pub breaker: Arc<str>,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
}

/// What happens at a breaker, as [`CircuitBreaker::events`](super::CircuitBreaker::events)
/// tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerEvent {
    /// The state changed.
    Transition(Transition),
    /// A call was refused.
    Rejected(CircuitOpen),
}

/// A snapshot of a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// The state.
    pub state: State,
    /// Calls in the window.
    pub calls: u64,
    /// Failed calls in the window.
    pub failures: u64,
    /// Slow calls in the window, failed or not.
    pub slow: u64,
    /// Probes that are under way.
    pub probes: u32,
    /// Changes of state since the breaker was made.
    pub transitions: u64,
    /// How often it has opened since it was made.
    pub opened: u64,
    /// Refused calls since it was made.
    pub rejected: u64,
    /// Answers that came after a transition and were not counted.
    pub late: u64,
}

impl Stats {
    /// The share of failures in the window, from 0 to 1.
    pub fn failure_rate(&self) -> f64 {
        share(self.failures, self.calls)
    }

    /// The share of slow calls in the window, from 0 to 1.
    pub fn slow_rate(&self) -> f64 {
        share(self.slow, self.calls)
    }
}

pub(super) fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}
