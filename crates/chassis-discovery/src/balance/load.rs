//! How loaded one endpoint is: the peak EWMA of its latency, and when it is due for a trial.
//!
//! The average moves slowly down and jumps up at once: one slow answer says more
//! about trouble than a hundred fast ones say about health. Source: Finagle's
//! `PeakEwma`; the cost of a failure is linkerd's (`load-biaser`).
//!
//! An endpoint with a high cost is not picked, so nothing would ever lower it but time. The
//! rule of the way back: one that had no call for a second, while the others had two hundred,
//! is due for a trial (go-zero's `forcePick` knows the second; the two hundred keep an ill
//! endpoint below half a percent of the calls). If the trial took less than half of what was
//! thought, the cost is halved and the next trial is due at once, one at a time. So an
//! endpoint that is well again is back after a dozen good answers in a row, and one that is
//! not has cost one call. A new endpoint begins with such trials.

use std::time::Duration;

use tokio::time::Instant;

/// How fast the past gives way to answers: after this long, its weight is 1/e. Between Kratos
/// (600 ms) and Finagle (10 s): one hiccup must not send calls elsewhere for many seconds.
const SETTLE: Duration = Duration::from_secs(1);
/// How fast it fades without answers (Finagle). Slower, because silence proves nothing.
const DECAY: Duration = Duration::from_secs(10);
/// What a new endpoint is thought to take, until it has answered once.
const FIRST_GUESS: Duration = Duration::from_millis(30);
/// What a failed call counts at least.
const FAILURE_COST: Duration = Duration::from_secs(5);
/// The cost never falls below this: a cost of nothing times any number of calls
/// under way would still be nothing.
const LEAST: Duration = Duration::from_micros(100);
/// An endpoint that had no call for this long may be due for one (go-zero's `forcePick`).
const STARVED_AFTER: Duration = Duration::from_secs(1);
/// How many calls the others had meanwhile, at least.
const STARVED_PICKS: u64 = 200;
/// And how many times its fair share of calls the others had.
const STARVED_TURNS: u64 = 16;

/// The running cost of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    seconds: f64,
    updated: Instant,
    picked_at: Instant,
    /// The number of the pool's pick that it had last.
    picked_as: u64,
    /// It has a trial coming.
    due: bool,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Load {
        Load {
            seconds: FIRST_GUESS.as_secs_f64(),
            updated: now,
            picked_at: now,
            picked_as: 0,
            due: true,
        }
    }

    /// Takes in one call that took `latency`.
    pub(crate) fn success(&mut self, latency: Duration, now: Instant) {
        self.observe(latency, now);
    }

    /// Takes in a trial call that took `latency`.
    pub(crate) fn proved(&mut self, latency: Duration, now: Instant) {
        let (cost, sample) = (self.cost(now), latency.as_secs_f64());
        if sample > cost {
            return self.observe(latency, now);
        }
        // What is known of it is old: the newest answer is believed, but for its being twice
        // as good as thought, which takes several.
        self.seconds = sample.max(cost / 2.0);
        self.updated = self.updated.max(now);
        self.due = sample < cost / 2.0;
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

    /// It gets the pool's pick of this number.
    pub(crate) fn picked(&mut self, pick: u64, now: Instant) {
        self.picked_at = now;
        self.picked_as = pick;
        self.due = false;
    }

    /// Whether it is time to see how it is, at the pool's pick of this number.
    pub(crate) fn is_due(&self, pick: u64, endpoints: usize, now: Instant) -> bool {
        let fair = STARVED_TURNS.saturating_mul(endpoints as u64);
        self.due
            || (pick.saturating_sub(self.picked_as) >= STARVED_PICKS.max(fair)
                && now.saturating_duration_since(self.picked_at) >= STARVED_AFTER)
    }

    /// The expected latency in seconds. Reading changes nothing.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        (self.seconds * self.remains(DECAY, now)).max(LEAST.as_secs_f64())
    }

    fn observe(&mut self, latency: Duration, now: Instant) {
        let (known, sample) = (self.seconds * self.remains(DECAY, now), latency.as_secs_f64());
        self.seconds = if sample > known {
            sample
        } else {
            let weight = self.remains(SETTLE, now);
            known * weight + sample * (1.0 - weight)
        };
        self.updated = self.updated.max(now);
    }

    /// The share of what was known that is left by now.
    fn remains(&self, over: Duration, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.updated);
        (-age.as_secs_f64() / over.as_secs_f64()).exp()
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
    fn a_hiccup_is_forgotten_after_a_second_or_two_of_answers() {
        let start = Instant::now();
        let mut load = Load::new(start);
        load.success(400 * MS, start);
        for n in 1..=300 {
            load.success(10 * MS, start + n * 10 * MS);
        }
        assert!(load.cost(start + 3_000 * MS) < 0.03, "{}", load.cost(start + 3_000 * MS));
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
    fn due_is_who_had_no_call_while_the_others_had_many() {
        let start = Instant::now();
        let later = start + STARVED_AFTER;
        let mut load = Load::new(start);
        assert!(load.is_due(1, 3, start), "a new one is");
        load.picked(1, start);
        for (pick, endpoints, now, due) in [
            (201, 3, later, true),
            (200, 3, later, false),
            (201, 3, later - MS, false),
            (201, 1_000, later, false),
            (16_001, 1_000, later, true),
        ] {
            assert_eq!(load.is_due(pick, endpoints, now), due, "{pick} of {endpoints}");
        }
    }

    #[test]
    fn good_trials_bring_it_back_in_a_dozen_steps_and_a_bad_one_costs_one_call() {
        let now = Instant::now();
        let mut load = Load::new(now);
        load.failure(MS, now);
        let mut steps = 0;
        load.picked(1, now);
        load.proved(MS, now);
        while load.is_due(2, 3, now) {
            load.picked(2, now);
            load.proved(MS, now);
            steps += 1;
        }
        assert!((11..=13).contains(&steps), "{steps}");
        assert!(load.cost(now) < 0.002, "{}", load.cost(now));

        load.failure(MS, now);
        assert!(!load.is_due(3, 3, now));
    }

    #[test]
    fn a_slow_one_that_is_as_slow_as_thought_has_no_second_trial() {
        let now = Instant::now();
        let mut load = Load::new(now);
        load.success(100 * MS, now);
        load.picked(1, now);
        load.proved(90 * MS, now);
        assert!(!load.is_due(2, 3, now));
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
