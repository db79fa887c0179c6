//! The recent calls, counted.
//!
//! A time window, not a count of calls: with a count, the last hundred calls of
//! a quiet night decide about the morning. Slots, not a moving average: an
//! average weighted by arrival hides a burst of failures.

use std::time::Instant;

use super::{settings::BreakerSettings, stats::share};
use crate::ring::Ring;

/// Calls, failures and slow calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

/// The sliding window of a breaker.
#[derive(Debug)]
pub(super) struct Window {
    ring: Ring<Tally>,
}

impl Window {
    pub(super) fn new(settings: &BreakerSettings) -> Self {
        Window { ring: Ring::new(settings.window, settings.buckets) }
    }

    /// Counts one call and returns the sum of the window.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Tally {
        let slot = self.ring.current(now);
        slot.calls += 1;
        slot.failures += u64::from(failed);
        slot.slow += u64::from(slow);
        self.tally(now)
    }

    /// The sum of the window.
    pub(super) fn tally(&mut self, now: Instant) -> Tally {
        self.ring.advance(now);
        self.ring.iter().fold(Tally::default(), |sum, slot| Tally {
            calls: sum.calls + slot.calls,
            failures: sum.failures + slot.failures,
            slow: sum.slow + slot.slow,
        })
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
    }
}

impl Tally {
    /// Whether the rates open the circuit.
    pub(super) fn trips(&self, settings: &BreakerSettings) -> bool {
        self.calls >= u64::from(settings.min_calls)
            && (share(self.failures, self.calls) >= settings.failure_rate
                || (settings.slow_call.is_some()
                    && share(self.slow, self.calls) >= settings.slow_rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_need_a_minimum_of_calls() {
        let settings = BreakerSettings {
            min_calls: 10,
            slow_call: Some(Duration::from_secs(1)),
            slow_rate: 0.8,
            ..BreakerSettings::default()
        };
        let table = [
            (9, 9, 9, false),
            (10, 4, 0, false),
            (10, 5, 0, true),
            (10, 0, 7, false),
            (10, 0, 8, true),
        ];
        for (calls, failures, slow, trips) in table {
            let tally = Tally { calls, failures, slow };
            assert_eq!(tally.trips(&settings), trips, "{tally:?}");
        }
    }

    #[test]
    fn slow_calls_do_not_count_without_a_limit() {
        let tally = Tally { calls: 100, failures: 0, slow: 100 };
        assert!(!tally.trips(&BreakerSettings::default()));
    }

    #[test]
    fn the_window_slides() {
        let start = tokio::time::Instant::now().into_std();
        let mut window = Window::new(&BreakerSettings::default());
        for second in 0..5 {
            window.record(start + Duration::from_secs(second), true, false);
        }
        for (second, failures) in [(9, 5), (10, 4), (12, 2), (14, 0)] {
            let tally = window.tally(start + Duration::from_secs(second));
            assert_eq!(tally.failures, failures, "after {second} s");
        }
    }
}
