//! The brain: which share of calls to refuse.
//!
//! The random number is an argument, like the time, so that a table can say what happens.

use std::time::{Duration, Instant};

use crate::ring::Ring;

/// Slots of the window, as go-zero has them.
const SLOTS: usize = 40;

/// The numbers of a [`Throttle`](super::Throttle).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThrottleSettings {
    /// The past that requests and accepts are counted over.
    pub window: Duration,
    /// So many requests are sent for each one that is accepted. Below 1 counts as 1.
    pub k: f64,
    /// Below so many requests in the window nothing is refused.
    pub min_requests: u32,
    /// One call is let through when none was for this long, so that recovery is noticed.
    pub force_pass: Duration,
}

impl Default for ThrottleSettings {
    /// K = 2 as in the book and in Kratos, over 10 seconds (go-zero; the book's two minutes
    /// remember an outage for too long), from 20 requests on (Kratos), and at least one call
    /// a second (go-zero).
    fn default() -> Self {
        ThrottleSettings {
            window: Duration::from_secs(10),
            k: 2.0,
            min_requests: 20,
            force_pass: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) accepts: u64,
}

/// Requests and accepts of the recent past.
#[derive(Debug)]
pub(super) struct Accepts {
    settings: ThrottleSettings,
    ring: Ring<Counts>,
    sum: Counts,
    passed: Option<Instant>,
}

impl Accepts {
    pub(super) fn new(settings: ThrottleSettings) -> Self {
        Accepts {
            settings,
            ring: Ring::new(settings.window, SLOTS),
            sum: Counts::default(),
            passed: None,
        }
    }

    /// Lets a call through or refuses it; `random` is from 0 up to 1.
    ///
    /// # Errors
    /// The share of calls that is refused now.
    pub(super) fn admit(&mut self, now: Instant, random: f64) -> Result<(), f64> {
        let share = self.share(now);
        let due = self
            .passed
            .is_none_or(|at| now.saturating_duration_since(at) >= self.settings.force_pass);
        if random < share && !due {
            self.count(now, 1, 0);
            return Err(share);
        }
        self.passed = Some(now);
        Ok(())
    }

    /// A call that was let through has ended.
    pub(super) fn ended(&mut self, now: Instant, accepted: bool) {
        self.count(now, 1, u64::from(accepted));
    }

    /// The probability with which a call is refused now.
    pub(super) fn share(&mut self, now: Instant) -> f64 {
        let Counts { requests, accepts } = self.counts(now);
        if requests < u64::from(self.settings.min_requests) {
            return 0.0;
        }
        let k = if self.settings.k > 1.0 { self.settings.k } else { 1.0 };
        let surplus = requests as f64 - k * accepts as f64;
        (surplus / (requests as f64 + 1.0)).max(0.0)
    }

    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        self.ring.advance_with(now, |gone| {
            self.sum.requests -= gone.requests;
            self.sum.accepts -= gone.accepts;
        });
        self.sum
    }

    fn count(&mut self, now: Instant, requests: u64, accepts: u64) {
        self.counts(now);
        let slot = self.ring.current(now);
        slot.requests += requests;
        slot.accepts += accepts;
        self.sum.requests += requests;
        self.sum.accepts += accepts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_share_is_the_formula_of_the_book() {
        let now = start();
        for (good, bad, k, share) in [
            (100, 0, 2.0, 0.0),
            (50, 50, 2.0, 0.0),
            (25, 75, 2.0, 50.0 / 101.0),
            (0, 100, 2.0, 100.0 / 101.0),
            (50, 50, 1.5, 25.0 / 101.0),
            (50, 50, f64::NAN, 50.0 / 101.0),
            (0, 19, 2.0, 0.0),
        ] {
            let mut accepts = Accepts::new(ThrottleSettings { k, ..ThrottleSettings::default() });
            (0..good).for_each(|_| accepts.ended(now, true));
            (0..bad).for_each(|_| accepts.ended(now, false));
            assert!((accepts.share(now) - share).abs() < 1e-12, "{good} {bad} {k}");
        }
    }

    #[test]
    fn what_is_refused_here_counts_as_not_accepted() {
        let now = start();
        let mut accepts = Accepts::new(ThrottleSettings::default());
        (0..100).for_each(|_| accepts.ended(now, false));
        accepts.admit(now, 0.0).unwrap();
        let before = accepts.share(now);
        (0..100).for_each(|_| assert!(accepts.admit(now, 0.0).is_err()));
        assert!(accepts.share(now) > before);
    }

    #[test]
    fn one_call_a_second_passes_and_the_past_is_forgotten() {
        let now = start();
        let mut accepts = Accepts::new(ThrottleSettings::default());
        (0..1_000).for_each(|_| accepts.ended(now, false));
        let passed = (0..50)
            .filter(|n| accepts.admit(now + Duration::from_millis(n * 100), 0.0).is_ok())
            .count();
        assert_eq!(passed, 5);
        assert_eq!(accepts.share(now + Duration::from_secs(20)), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        /// A callee that accepts a part gets about `k` times that part.
        #[test]
        fn a_callee_gets_k_times_what_it_accepts(
            part in 0.05f64..0.45,
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut accepts = Accepts::new(ThrottleSettings::default());
            let mut sent = 0u32;
            let mut taken = 0.0;
            // 1000 calls a second for 20 s, of which the callee can do a part.
            for n in 0..20_000u32 {
                let now = start() + Duration::from_millis(u64::from(n));
                let late = n >= 10_000;
                if accepts.admit(now, random.f64()).is_ok() {
                    taken += 1.0;
                    let accepted = taken <= part * f64::from(n + 1);
                    if !accepted {
                        taken -= 1.0;
                    }
                    accepts.ended(now, accepted);
                    sent += u32::from(late);
                }
            }
            let share = f64::from(sent) / 10_000.0;
            prop_assert!(share > part && share < 2.4 * part + 0.02, "{share} for {part}");
        }
    }
}
