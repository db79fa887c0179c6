//! Leave to make one call.
//!
//! A guard, because a call can end in more ways than an answer: its future can
//! be dropped, its task can panic. However it ends, the place is given back.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    CircuitBreaker,
    gate::{Outcome, Ticket},
};
use crate::{Class, Settle, Verdict};

/// Leave to make one call. Say how it ended; dropping it gives the place back.
///
/// A drop says nothing about the callee, unless the permit was held for at least
/// [`slow_call`](super::BreakerSettings::slow_call): then it counts as a slow call.
#[derive(Debug)]
#[must_use = "dropping the permit at once means that no call was made"]
pub struct Permit {
    breaker: CircuitBreaker,
    ticket: Option<Ticket>,
    taken_at: Instant,
}

impl Permit {
    pub(super) fn new(breaker: CircuitBreaker, ticket: Ticket, taken_at: Instant) -> Self {
        Permit { breaker, ticket: Some(ticket), taken_at }
    }

    /// The callee did its work within `latency`.
    pub fn success(self, latency: Duration) {
        self.end(latency, Outcome::Success(latency), None);
    }

    /// The callee failed after `latency`.
    pub fn failure(self, latency: Duration) {
        self.end(latency, Outcome::Failure(latency), None);
    }

    /// The answer says nothing about the callee.
    pub fn ignore(self) {
        self.end(Duration::ZERO, Outcome::Ignored, None);
    }

    fn end(mut self, latency: Duration, outcome: Outcome, retry_after: Option<Duration>) {
        // The call ended `latency` after the instant that the caller named, so
        // that a caller with its own clock is consistent with itself.
        let now = self.taken_at.checked_add(latency).unwrap_or(self.taken_at);
        if let Some(ticket) = self.ticket.take() {
            self.breaker.settle(ticket, now, outcome, retry_after);
        }
    }
}

impl Settle for Permit {
    fn settle(self, verdict: Verdict) {
        let took = verdict.latency;
        match verdict.class {
            Class::Success => self.success(took),
            Class::Failure | Class::Unreachable => {
                self.end(took, Outcome::Failure(took), verdict.retry_after)
            }
            Class::Overloaded => self.end(took, Outcome::Overloaded(took), verdict.retry_after),
            Class::Refused | Class::Ignore => self.ignore(),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = Instant::now();
            let held = now.saturating_duration_since(self.taken_at);
            self.breaker.settle(ticket, now, Outcome::Dropped(held), None);
        }
    }
}
