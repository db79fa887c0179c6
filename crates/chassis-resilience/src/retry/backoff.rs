//! How long to wait before the next attempt.
//!
//! Exponential growth with full jitter: of the variants compared in "Exponential
//! Backoff And Jitter" (Marc Brooker, AWS Architecture Blog, 2015) it needs the
//! fewest calls until all contenders are through. Without jitter, clients that
//! failed together come back together.

use std::time::Duration;

/// Exponential backoff with full jitter. Pure: the random number is an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The longest wait after the first attempt.
    pub base: Duration,
    /// No wait is longer than this.
    pub cap: Duration,
    /// By how much the longest wait grows with each attempt. Below 1 counts as 1.
    pub factor: f64,
}

impl Default for Backoff {
    /// 50 ms, doubled up to 2 s.
    ///
    /// A restarted process or a moved connection is back within some tens of
    /// milliseconds; whoever waits longer than two seconds should be told.
    fn default() -> Self {
        Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(2), factor: 2.0 }
    }
}

impl Backoff {
    /// The longest possible wait after `attempt` attempts (1 = the first one).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = if self.factor > 1.0 { self.factor } else { 1.0 };
        let seconds = self.base.as_secs_f64() * factor.powi(exponent);
        // Overflow, infinity and not-a-number all mean "beyond the cap".
        match Duration::try_from_secs_f64(seconds) {
            Ok(grown) => grown.min(self.cap),
            Err(_) => self.cap,
        }
    }

    /// The wait after `attempt` attempts (1 = the first one): `random`, a number
    /// from 0 to 1, times [`Backoff::ceiling`].
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        let ceiling = self.ceiling(attempt);
        // Rounding of the product may end a nanosecond above the ceiling.
        match Duration::try_from_secs_f64(ceiling.as_secs_f64() * random) {
            Ok(delay) => delay.min(ceiling),
            Err(_) => ceiling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let backoff = Backoff::default();
        let expected = [(0, 50), (1, 50), (2, 100), (3, 200), (6, 1_600), (7, 2_000)];
        for (attempt, ms) in expected {
            assert_eq!(
                backoff.delay(attempt, 1.0),
                Duration::from_millis(ms),
                "after attempt {attempt}"
            );
        }
    }

    #[test]
    fn jitter_covers_the_whole_range() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(25));
        assert_eq!(backoff.delay(1, f64::NAN), Duration::from_millis(50));
    }

    proptest! {
        #[test]
        fn never_exceeds_the_cap(
            base in 0u64..u64::MAX,
            cap in 0u64..u64::MAX,
            factor in any::<f64>(),
            attempt in any::<u32>(),
            random in any::<f64>(),
        ) {
            let backoff = Backoff {
                base: Duration::from_nanos(base),
                cap: Duration::from_nanos(cap),
                factor,
            };
            prop_assert!(backoff.delay(attempt, random) <= backoff.cap);
        }

        #[test]
        fn the_ceiling_never_shrinks(attempt in 0u32..100) {
            let backoff = Backoff::default();
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1));
        }
    }
}
