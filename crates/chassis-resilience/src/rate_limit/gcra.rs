//! The brain: the generic cell rate algorithm.
//!
//! GCRA (ITU-T I.371) is a leaky bucket that remembers one instant instead of a
//! level and needs no timer. The instant is the theoretical arrival time: when
//! the next call would come if all kept the pace exactly. A call may be early by
//! the tolerance that the burst allows. In any period `p`, at most
//! `burst + p / interval` calls pass.

use std::time::{Duration, Instant};

/// A rate and the burst that it forgives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    interval: Duration,
    burst: u32,
}

impl RateLimit {
    /// `calls` per `period`, without a burst: each call waits for its turn. Zero
    /// calls counts as one.
    pub fn new(calls: u32, period: Duration) -> Self {
        let calls = u128::from(calls.max(1));
        // Rounded up, so that rounding never lets more through.
        let nanos = period.as_nanos().div_ceil(calls).max(1);
        RateLimit {
            interval: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            burst: 1,
        }
    }

    /// `calls` per second.
    pub fn per_second(calls: u32) -> Self {
        Self::new(calls, Duration::from_secs(1))
    }

    /// `calls` per minute.
    pub fn per_minute(calls: u32) -> Self {
        Self::new(calls, Duration::from_secs(60))
    }

    /// Lets `calls` come at once after a pause. Zero counts as one.
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = calls.max(1);
        self
    }

    /// The pace: one call per interval.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// After this time without a call, the whole burst is there again.
    pub fn refill(&self) -> Duration {
        self.interval.saturating_mul(self.burst)
    }

    /// The part of the limit that each of `instances` may use, so that all together keep it.
    /// At least one call at a time is left to each.
    pub fn share(&self, instances: u32) -> Self {
        let instances = instances.max(1);
        RateLimit {
            interval: self.interval.saturating_mul(instances),
            burst: (self.burst / instances).max(1),
        }
    }

    /// How many calls may come at once after a pause.
    pub fn burst_size(&self) -> u32 {
        self.burst
    }

    fn tolerance(&self) -> Duration {
        self.interval.saturating_mul(self.burst - 1)
    }
}

/// The state of one limited thing: a single instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    /// The theoretical arrival time of the next call; `None` before the first.
    arrival: Option<Instant>,
}

impl Gcra {
    /// Lets a call at `now` pass and counts it, or says how long to wait. A
    /// refused call is not counted.
    ///
    /// # Errors
    /// The time until a call would pass.
    pub fn check(&mut self, limit: &RateLimit, now: Instant) -> Result<(), Duration> {
        self.take(limit, now, 1).map(|_| ())
    }

    /// As [`Gcra::check`] for up to `want` calls at once (0 counts as 1). Gives how many of them
    /// pass, at least one.
    ///
    /// # Errors
    /// The time until a call would pass.
    pub fn take(&mut self, limit: &RateLimit, now: Instant, want: u32) -> Result<u32, Duration> {
        let arrival = self.arrival.map_or(now, |arrival| arrival.max(now));
        let early = arrival.saturating_duration_since(now);
        let tolerance = limit.tolerance();
        if early > tolerance {
            return Err(early - tolerance);
        }
        let room = (tolerance - early).as_nanos() / limit.interval.as_nanos() + 1;
        let taken = want.max(1).min(u32::try_from(room).unwrap_or(u32::MAX));
        // An arrival beyond what an instant can hold is as good as never moved.
        let next = arrival.checked_add(limit.interval.saturating_mul(taken));
        self.arrival = Some(next.unwrap_or(arrival));
        Ok(taken)
    }

    /// Whether it has forgotten all calls, so that a new one would be the same.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.arrival.is_none_or(|arrival| arrival <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passes(limit: &RateLimit, at_ms: &[u64]) -> Vec<bool> {
        let start = tokio::time::Instant::now().into_std();
        let mut gcra = Gcra::default();
        at_ms
            .iter()
            .map(|ms| gcra.check(limit, start + Duration::from_millis(*ms)).is_ok())
            .collect()
    }

    #[test]
    fn keeps_the_pace() {
        let limit = RateLimit::per_second(10);
        assert_eq!(
            passes(&limit, &[0, 50, 99, 100, 150, 200]),
            [true, false, false, true, false, true]
        );
    }

    #[test]
    fn forgives_a_burst_once() {
        let limit = RateLimit::per_second(10).burst(3);
        assert_eq!(
            passes(&limit, &[0, 0, 0, 0, 100, 100, 400, 400, 400, 400]),
            [true, true, true, false, true, false, true, true, true, false]
        );
    }

    #[test]
    fn says_how_long_to_wait() {
        let now = tokio::time::Instant::now().into_std();
        let limit = RateLimit::per_second(4).burst(2);
        let mut gcra = Gcra::default();
        assert!(gcra.check(&limit, now).is_ok());
        assert!(gcra.check(&limit, now).is_ok());
        let wait = gcra.check(&limit, now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(250));
        assert!(gcra.check(&limit, now + wait).is_ok());
    }

    #[test]
    fn extremes_do_not_overflow() {
        let now = tokio::time::Instant::now().into_std();
        for limit in [
            RateLimit::new(0, Duration::ZERO).burst(0),
            RateLimit::new(1, Duration::MAX).burst(u32::MAX),
            RateLimit::per_second(u32::MAX),
        ] {
            let mut gcra = Gcra::default();
            assert!(gcra.check(&limit, now).is_ok());
        }
    }

    proptest! {
        #[test]
        fn the_rate_is_bounded_over_any_window(
            calls in 1u32..1_000,
            burst in 1u32..20,
            pauses in prop::collection::vec(0u64..20_000, 1..300),
        ) {
            let limit = RateLimit::per_second(calls).burst(burst);
            let start = tokio::time::Instant::now().into_std();
            let mut gcra = Gcra::default();
            let mut at = Duration::ZERO;
            let mut passed = Vec::new();
            for micros in pauses {
                at += Duration::from_micros(micros);
                if gcra.check(&limit, start + at).is_ok() {
                    passed.push(at);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u128;
                    let allowed = u128::from(burst)
                        + (*to - *from).as_nanos() / limit.interval().as_nanos();
                    prop_assert!(count <= allowed, "{count} calls, {allowed} allowed");
                }
            }
        }

        #[test]
        fn taking_many_is_taking_one_many_times(
            calls in 1u32..1_000,
            burst in 1u32..20,
            steps in prop::collection::vec((0u64..20_000, 1u32..30), 1..100),
        ) {
            let limit = RateLimit::per_second(calls).burst(burst);
            let mut now = tokio::time::Instant::now().into_std();
            let (mut many, mut one) = (Gcra::default(), Gcra::default());
            for (micros, want) in steps {
                now += Duration::from_micros(micros);
                let taken = many.take(&limit, now, want).unwrap_or(0);
                let singly = (0..want).take_while(|_| one.check(&limit, now).is_ok()).count();
                prop_assert_eq!(taken as usize, singly);
                prop_assert_eq!(many, one);
            }
        }

        #[test]
        fn waiting_as_told_always_passes(
            calls in 1u32..1_000,
            burst in 1u32..20,
            pauses in prop::collection::vec(0u64..5_000, 1..100),
        ) {
            let limit = RateLimit::per_second(calls).burst(burst);
            let mut now = tokio::time::Instant::now().into_std();
            let mut gcra = Gcra::default();
            for micros in pauses {
                now += Duration::from_micros(micros);
                if let Err(wait) = gcra.check(&limit, now) {
                    prop_assert!(wait > Duration::ZERO && wait <= limit.refill());
                    now += wait;
                    prop_assert!(gcra.check(&limit, now).is_ok());
                }
            }
        }
    }
}
