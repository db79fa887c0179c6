//! When to ask again: the brain of the DNS resolver.
//!
//! After an answer, when its TTL ends; after a failure, soon, then less and
//! less often. A little earlier than the exact moment and never all together:
//! a fleet that started together must not query together for ever.

use std::time::Duration;

/// The part of the wait that chance may take away.
const JITTER: f64 = 0.1;

/// Decides the pause until the next lookup.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    floor: Duration,
    ceiling: Duration,
    failures: u32,
}

impl Refresh {
    pub(crate) fn new(floor: Duration, ceiling: Duration) -> Refresh {
        Refresh { floor, ceiling, failures: 0 }
    }

    /// After an answer that is valid for `ttl`; `random` is in `0.0..1.0`.
    pub(crate) fn after_answer(&mut self, ttl: Duration, random: f64) -> Duration {
        self.failures = 0;
        self.between(ttl, random)
    }

    /// After a failure: the floor, doubled with each one in a row.
    pub(crate) fn after_failure(&mut self, random: f64) -> Duration {
        let wait = self.floor.saturating_mul(2u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        self.between(wait, random)
    }

    /// Whether the last lookup failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    fn between(&self, wait: Duration, random: f64) -> Duration {
        wait.clamp(self.floor, self.ceiling).mul_f64(1.0 - JITTER * random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOOR: Duration = Duration::from_secs(1);
    const CEILING: Duration = Duration::from_secs(60);

    #[test]
    fn the_ttl_rules_between_floor_and_ceiling() {
        let mut refresh = Refresh::new(FLOOR, CEILING);
        for (ttl, expected) in [(0, 1), (5, 5), (60, 60), (86_400, 60)] {
            let wait = refresh.after_answer(Duration::from_secs(ttl), 0.0);
            assert_eq!(wait, Duration::from_secs(expected), "ttl {ttl}");
        }
    }

    #[test]
    fn failures_are_asked_again_less_and_less_often() {
        let mut refresh = Refresh::new(FLOOR, CEILING);
        let waits: Vec<u64> = (0..8).map(|_| refresh.after_failure(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(refresh.is_failing());
        refresh.after_answer(FLOOR, 0.0);
        assert!(!refresh.is_failing());
        assert_eq!(refresh.after_failure(0.0), FLOOR);
    }

    proptest! {
        #[test]
        fn no_wait_is_too_short_or_too_long(
            steps in proptest::collection::vec((any::<bool>(), 0u64..1_000_000, 0.0f64..1.0), 1..200),
        ) {
            let mut refresh = Refresh::new(FLOOR, CEILING);
            for (answered, ttl, random) in steps {
                let wait = if answered {
                    refresh.after_answer(Duration::from_secs(ttl), random)
                } else {
                    refresh.after_failure(random)
                };
                prop_assert!(wait >= FLOOR.mul_f64(0.9) && wait <= CEILING);
            }
        }
    }
}
