//! The brain: after which time a call counts as late.
//!
//! A quantile over the recent past, from two histograms of which the older is dropped every
//! half window: fixed memory, and a callee that changed is known after one window. What the
//! loser of a race would have taken is not known, but it is known to be longer than the
//! delay, which is all that a quantile needs to stay right.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// So many new samples are worth looking at all buckets again.
const REFRESH: u32 = 32;

/// When a hedge is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeSettings {
    /// The share of calls, above 0 and below 1, that answer before a copy is sent.
    pub quantile: f64,
    /// The past that the quantile is taken over.
    pub window: Duration,
    /// Below so many answers in the window nothing is known, and no copy is sent.
    pub min_samples: u32,
    /// No copy is sent before this time, however fast the callee is.
    pub min_delay: Duration,
}

impl Default for HedgeSettings {
    /// After the 95th percentile ("The Tail at Scale": about 5 % more load) of the last minute,
    /// from 100 answers on (Resilience4j's hedge window), and not before 1 ms, which is the
    /// grain of the timer.
    fn default() -> Self {
        HedgeSettings {
            quantile: 0.95,
            window: Duration::from_secs(60),
            min_samples: 100,
            min_delay: Duration::from_millis(1),
        }
    }
}

/// The measured delay.
#[derive(Debug)]
pub(super) struct Delay {
    settings: HedgeSettings,
    newer: Histogram,
    older: Histogram,
    turned: Option<Instant>,
    unseen: u32,
    known: Option<Duration>,
}

impl Delay {
    pub(super) fn new(settings: HedgeSettings) -> Self {
        Delay {
            settings,
            newer: Histogram::default(),
            older: Histogram::default(),
            turned: None,
            unseen: 0,
            known: None,
        }
    }

    /// Takes in how long one call took, or that it took at least so long.
    pub(super) fn record(&mut self, now: Instant, took: Duration) {
        self.turn(now);
        self.newer.record(took);
        self.unseen += 1;
        if self.unseen >= REFRESH || self.known.is_none() {
            self.refresh();
        }
    }

    /// After which time a copy is sent. `None` if too little is known.
    pub(super) fn get(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        self.known
    }

    /// Drops what is older than the window.
    fn turn(&mut self, now: Instant) {
        let turned = *self.turned.get_or_insert(now);
        let age = now.saturating_duration_since(turned);
        let half = self.settings.window / 2;
        if age < half {
            return;
        }
        std::mem::swap(&mut self.newer, &mut self.older);
        self.newer.clear();
        if age >= self.settings.window {
            self.older.clear();
        }
        self.turned = Some(now);
        self.refresh();
    }

    fn refresh(&mut self) {
        self.unseen = 0;
        let enough = self.newer.len() + self.older.len() >= u64::from(self.settings.min_samples);
        let quantile = if enough {
            self.newer.quantile_with(&self.older, self.settings.quantile)
        } else {
            None
        };
        self.known = quantile.map(|delay| delay.max(self.settings.min_delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn fed(answers: u32, at: Instant) -> Delay {
        let mut delay = Delay::new(HedgeSettings::default());
        for n in 0..answers {
            delay.record(at, (n % 100 + 1) * MS);
        }
        delay
    }

    #[test]
    fn says_nothing_before_it_knows_enough() {
        let now = start();
        assert_eq!(fed(99, now).get(now), None);
        let known = fed(100, now).get(now).unwrap();
        assert!(known >= 95 * MS && known <= 101 * MS, "{known:?}");
    }

    #[test]
    fn forgets_what_is_older_than_the_window() {
        let now = start();
        let mut delay = fed(1_000, now);
        assert!(delay.get(now + 59_000 * MS).is_some());
        assert_eq!(delay.get(now + 121_000 * MS), None);
        let mut delay = fed(1_000, now);
        assert_eq!(delay.get(now + 3_600_000 * MS), None, "a long silence forgets all");
    }

    #[test]
    fn follows_a_callee_that_became_slow() {
        let now = start();
        let mut delay = fed(1_000, now);
        for second in 0..90 {
            for _ in 0..20 {
                delay.record(now + second * 1_000 * MS, 900 * MS);
            }
        }
        assert!(delay.get(now + 90_000 * MS).unwrap() >= 900 * MS);
    }

    #[test]
    fn is_never_shorter_than_the_least() {
        let now = start();
        let mut delay = Delay::new(HedgeSettings::default());
        for _ in 0..200 {
            delay.record(now, Duration::from_micros(3));
        }
        assert_eq!(delay.get(now), Some(MS));
    }

    #[test]
    fn a_loser_of_at_least_the_delay_keeps_the_quantile_right() {
        let now = start();
        let mut delay = fed(1_000, now);
        let before = delay.get(now).unwrap();
        // One call in twenty is hedged at the delay and its real length never known.
        for n in 0..10_000u32 {
            let took = (n % 100 + 1) * MS;
            delay.record(now, took.min(before + MS));
        }
        let after = delay.get(now).unwrap();
        assert!(after >= before && after <= before + before / 8, "{before:?} {after:?}");
    }
}
