//! How loaded one endpoint is: the peak EWMA of its latency.
//!
//! The average moves slowly down and jumps up at once: one slow answer says more
//! about trouble than a hundred fast ones say about health. Source: Finagle's
//! `PeakEwma`; the cost of a failure is linkerd's (`load-biaser`). With time and
//! no answers the memory of a peak fades, so that a cured endpoint comes back.

use std::time::Duration;

use tokio::time::Instant;

/// How fast the past fades: after this long, its weight is 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What a new endpoint is thought to take, until it has answered once.
const FIRST_GUESS: Duration = Duration::from_millis(30);
/// What a failed call counts at least.
const FAILURE_COST: Duration = Duration::from_secs(5);
/// The cost never falls below this: a cost of nothing times any number of calls
/// under way would still be nothing.
const LEAST: Duration = Duration::from_micros(100);
/// An endpoint that had no call for this long is due for one (Kratos: 3 s).
const STARVED_AFTER: Duration = Duration::from_secs(3);

/// The running cost of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    seconds: f64,
    updated: Instant,
    picked: Instant,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Load {
        Load { seconds: FIRST_GUESS.as_secs_f64(), updated: now, picked: now }
    }

    /// Takes in one call that took `latency`.
    pub(crate) fn success(&mut self, latency: Duration, now: Instant) {
        self.observe(latency, now);
    }

    /// Takes in one call that failed.
    pub(crate) fn failure(&mut self, latency: Duration, now: Instant) {
        self.observe(latency.max(FAILURE_COST), now);
    }

    /// Takes in a call that was given up after `elapsed`: it would have taken at
    /// least that long, so it can only raise the cost.
    pub(crate) fn given_up(&mut self, elapsed: Duration, now: Instant) {
        if elapsed.as_secs_f64() > self.cost(now) {
            self.observe(elapsed, now);
        }
    }

    pub(crate) fn picked(&mut self, now: Instant) {
        self.picked = now;
    }

    /// Whether no call went there for so long that what is known is old.
    pub(crate) fn is_starved(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.picked) >= STARVED_AFTER
    }

    /// The expected latency in seconds. Reading changes nothing.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        (self.seconds * self.fade(now)).max(LEAST.as_secs_f64())
    }

    fn observe(&mut self, latency: Duration, now: Instant) {
        let sample = latency.as_secs_f64();
        let fade = self.fade(now);
        self.seconds = if sample > self.seconds * fade {
            sample
        } else {
            self.seconds * fade + sample * (1.0 - fade)
        };
        self.updated = self.updated.max(now);
    }

    fn fade(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.updated);
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Instant::now();
        let mut load = Load::new(start);
        load.success(400 * MS, start);
        assert!((load.cost(start) - 0.4).abs() < 1e-9);
        load.success(MS, start);
        assert!(load.cost(start) > 0.39, "one fast answer forgets no peak");
        let later = start + DECAY;
        assert!((load.cost(later) - 0.4 / std::f64::consts::E).abs() < 1e-3);
        assert_eq!(load.cost(start + 1000 * DECAY), LEAST.as_secs_f64());
    }

    #[test]
    fn a_fast_failure_costs_more_than_a_slow_success() {
        let now = Instant::now();
        let (mut failing, mut slow) = (Load::new(now), Load::new(now));
        failing.failure(MS, now);
        slow.success(800 * MS, now);
        assert!(failing.cost(now) > slow.cost(now));
    }

    #[test]
    fn a_call_given_up_only_raises_the_cost() {
        let now = Instant::now();
        let mut load = Load::new(now);
        load.given_up(MS, now);
        assert!((load.cost(now) - FIRST_GUESS.as_secs_f64()).abs() < 1e-9);
        load.given_up(2000 * MS, now);
        assert!((load.cost(now) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn starved_is_who_was_not_picked_for_long() {
        let start = Instant::now();
        let mut load = Load::new(start);
        assert!(!load.is_starved(start));
        assert!(load.is_starved(start + STARVED_AFTER));
        load.picked(start + STARVED_AFTER);
        assert!(!load.is_starved(start + STARVED_AFTER));
    }

    proptest! {
        #[test]
        fn the_cost_stays_within_what_was_seen(
            calls in proptest::collection::vec((0u64..10_000, 0u64..60_000, any::<bool>()), 1..100),
        ) {
            let mut now = Instant::now();
            let mut load = Load::new(now);
            for (latency, pause, failed) in calls {
                now += pause as u32 * MS;
                if failed {
                    load.failure(latency as u32 * MS, now);
                } else {
                    load.success(latency as u32 * MS, now);
                }
                let cost = load.cost(now);
                prop_assert!(cost.is_finite() && cost >= LEAST.as_secs_f64() && cost <= 10.0);
            }
        }
    }
}
