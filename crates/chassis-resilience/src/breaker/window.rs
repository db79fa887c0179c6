//! The recent calls, counted.
//!
//! By default a time window: with a count, the last hundred calls of a quiet night decide
//! about the morning. A count is there for callees that are called too seldom for any time.
//! Slots, not a moving average: an average weighted by arrival hides a burst of failures. The
//! sum is kept, so that a call costs the same however many slots there are.

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
    span: Span,
    sum: Tally,
}

#[derive(Debug)]
enum Span {
    Time(Ring<Tally>),
    Calls(Last),
}

/// The last calls, of which the oldest makes room for the newest.
#[derive(Debug)]
struct Last {
    calls: Vec<Tally>,
    size: usize,
    oldest: usize,
}

impl Window {
    pub(super) fn new(settings: &BreakerSettings) -> Self {
        let span = match settings.window_calls {
            None => Span::Time(Ring::new(settings.window, settings.buckets)),
            Some(size) => Span::Calls(Last { calls: Vec::new(), size: size as usize, oldest: 0 }),
        };
        Window { span, sum: Tally::default() }
    }

    /// Counts one call and returns the sum of the window.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Tally {
        let call = Tally { calls: 1, failures: u64::from(failed), slow: u64::from(slow) };
        self.advance(now);
        match &mut self.span {
            Span::Time(ring) => ring.newest().add(call),
            Span::Calls(last) => {
                if let Some(gone) = last.push(call) {
                    self.sum.remove(&gone);
                }
            }
        }
        self.sum.add(call);
        self.sum
    }

    /// The sum of the window.
    pub(super) fn tally(&mut self, now: Instant) -> Tally {
        self.advance(now);
        self.sum
    }

    pub(super) fn clear(&mut self) {
        self.sum = Tally::default();
        match &mut self.span {
            Span::Time(ring) => ring.clear(),
            Span::Calls(last) => {
                last.calls.clear();
                last.oldest = 0;
            }
        }
    }

    fn advance(&mut self, now: Instant) {
        if let Span::Time(ring) = &mut self.span {
            ring.advance_with(now, |gone| self.sum.remove(gone));
        }
    }
}

impl Last {
    fn push(&mut self, call: Tally) -> Option<Tally> {
        if self.calls.len() < self.size {
            self.calls.push(call);
            return None;
        }
        let gone = std::mem::replace(&mut self.calls[self.oldest], call);
        self.oldest = (self.oldest + 1) % self.size;
        Some(gone)
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }

    fn remove(&mut self, other: &Tally) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }
}

impl Tally {
    /// Whether the rates open the circuit.
    pub(super) fn trips(&self, settings: &BreakerSettings) -> bool {
        // The usual answer first, without a division.
        (self.failures > 0 || self.slow > 0)
            && self.calls >= u64::from(settings.min_calls)
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

    #[test]
    fn a_count_window_holds_the_last_calls_however_old() {
        let now = tokio::time::Instant::now().into_std();
        let settings = BreakerSettings { window_calls: Some(3), ..BreakerSettings::default() };
        let mut window = Window::new(&settings);
        let table = [(true, 1), (true, 2), (false, 2), (false, 1), (false, 0), (true, 1)];
        for (day, (failed, failures)) in table.into_iter().enumerate() {
            let at = now + Duration::from_secs(86_400) * day as u32;
            let tally = window.record(at, failed, false);
            assert_eq!((tally.failures, tally.calls), (failures, 3.min(day as u64 + 1)));
        }
        window.clear();
        assert_eq!(window.tally(now), Tally::default());
    }

    proptest::proptest! {
        #[test]
        fn the_kept_sum_is_the_sum_of_the_slots(
            calls in proptest::collection::vec((0u64..4_000, proptest::bool::ANY), 1..300),
        ) {
            let mut now = tokio::time::Instant::now().into_std();
            let mut window = Window::new(&BreakerSettings::default());
            for (millis, failed) in calls {
                now += Duration::from_millis(millis);
                let sum = window.record(now, failed, !failed);
                let Span::Time(ring) = &window.span else { unreachable!() };
                let mut slots = Tally::default();
                ring.iter().for_each(|slot| slots.add(*slot));
                proptest::prop_assert_eq!(sum, slots);
            }
        }
    }
}
