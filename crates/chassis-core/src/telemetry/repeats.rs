//! Keeps one line that repeats from drowning all others.
//!
//! A dependency that is down lets the same warning be written for each call, thousands of
//! times a second, and buries what came before it. So of each place in the code only so many
//! warnings and errors are written in a second; the first line after that says how many were
//! left out. The scheme is that of zap's sampler (first n of a tick), by place and not by
//! text, since the text holds the ids.
//!
//! Lines of the levels below are not limited, nor is the access log: each of those lines
//! stands for a call of its own, and the filter decides whether anyone wants them.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Level, Metadata, callsite::Identifier};

use crate::Counter;

const SECOND: Duration = Duration::from_secs(1);

/// How often each place in the code has written lately.
pub(super) struct Repeats {
    /// Lines a second; 0 for no limit.
    limit: u32,
    /// As many as there are warnings in the code of the process.
    places: Mutex<HashMap<Identifier, Place>>,
    left_out: Counter,
}

#[derive(Clone, Copy)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It is written; this many before it were not.
    Write { left_out: u64 },
    /// It is left out.
    LeaveOut,
}

impl Repeats {
    pub(super) fn new(limit: u32) -> Repeats {
        Repeats { limit, places: Mutex::default(), left_out: Counter::default() }
    }

    /// Lines left out so far.
    pub(super) fn left_out(&self) -> &Counter {
        &self.left_out
    }

    pub(super) fn decide(&self, metadata: &Metadata<'_>) -> Repeat {
        let is_limited = self.limit > 0
            && *metadata.level() <= Level::WARN
            && metadata.target() != super::ACCESS_LOG;
        if !is_limited {
            return Repeat::Write { left_out: 0 };
        }
        let now = Instant::now();
        let mut places = self.places.lock();
        let fresh = Place { since: now, written: 0, left_out: 0 };
        let place = places.entry(metadata.callsite()).or_insert(fresh);
        let decision = place.decide(self.limit, now);
        if decision == Repeat::LeaveOut {
            self.left_out.inc();
        }
        decision
    }
}

impl Place {
    fn decide(&mut self, limit: u32, now: Instant) -> Repeat {
        if now.saturating_duration_since(self.since) >= SECOND {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= limit {
            self.left_out += 1;
            return Repeat::LeaveOut;
        }
        self.written += 1;
        Repeat::Write { left_out: std::mem::take(&mut self.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_told_once_with_the_next_line() {
        let start = Instant::now();
        let mut place = Place { since: start, written: 0, left_out: 0 };
        let written = Repeat::Write { left_out: 0 };
        assert_eq!(place.decide(2, start), written);
        assert_eq!(place.decide(2, start), written);
        for _ in 0..5 {
            assert_eq!(place.decide(2, start + SECOND / 2), Repeat::LeaveOut);
        }
        assert_eq!(place.decide(2, start + SECOND), Repeat::Write { left_out: 5 });
        assert_eq!(place.decide(2, start + SECOND), written);
        assert_eq!(place.decide(2, start + SECOND), Repeat::LeaveOut);
    }
}
