//! When a breaker opens, for how long, and what closes it.
//!
//! Three rules open it, and any one is enough: consecutive failures catch a
//! callee that is gone, the failure rate one that is ill, the slow rate one that
//! drowns. The rates wait for a minimum of calls, because one failure of one
//! call is not a rate of 100 %.

use std::time::Duration;

use super::InvalidSettings;

/// The longest window of calls: some megabytes would be spent beyond it.
const MOST_CALLS: u32 = 100_000;

/// The numbers of a [`CircuitBreaker`](super::CircuitBreaker).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// The past that the rates are taken over.
    pub window: Duration,
    /// Instead of the past, the last so many calls, 1 to 100 000: for a callee
    /// that is called too seldom for any time. `None` by default. `window` then
    /// only says how long a circuit must stay closed to count as recovered.
    pub window_calls: Option<u32>,
    /// Into how many slots the window is cut; it slides by one slot. 1 to 1 000.
    pub buckets: usize,
    /// The rates say nothing below so many calls in the window.
    pub min_calls: u32,
    /// The share of failures, above 0 up to 1, from which the circuit opens.
    pub failure_rate: f64,
    /// From this duration a call is slow. `None` switches the slow rate off.
    pub slow_call: Option<Duration>,
    /// The share of slow calls, above 0 up to 1, from which the circuit opens.
    pub slow_rate: f64,
    /// So many failures without a success between them open the circuit,
    /// whatever the rates say. 0 switches this rule off.
    pub consecutive_failures: u32,
    /// The longest first open time. The real one is between half of it and all
    /// of it, so that callers do not come back at the same moment.
    pub open_for: Duration,
    /// The open time doubles with each opening that follows a failed probe, or
    /// that comes within one window after closing, up to this. A callee that asks
    /// to be left alone for longer (`Retry-After`) is heard up to this, too; the
    /// jitter comes on top of what it asked for.
    pub open_max: Duration,
    /// So many probes may be under way at the same time in half-open.
    pub half_open_permits: u32,
    /// So many successful probes close the circuit. One failed or slow probe
    /// opens it again.
    pub successes_to_close: u32,
}

impl Default for BreakerSettings {
    /// 50 % failures of at least 20 calls in 10 seconds, or 5 in a row; open for
    /// 5 seconds, growing to 60; 3 probes.
    ///
    /// Half and twenty are what MicroProfile, Kratos and Moleculer use; five in a
    /// row is Finagle's and Envoy's number; five seconds is Polly's. No call is
    /// slow by default, because only the caller knows what slow is.
    fn default() -> Self {
        BreakerSettings {
            window: Duration::from_secs(10),
            window_calls: None,
            buckets: 10,
            min_calls: 20,
            failure_rate: 0.5,
            slow_call: None,
            slow_rate: 1.0,
            consecutive_failures: 5,
            open_for: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            half_open_permits: 3,
            successes_to_close: 3,
        }
    }
}

impl BreakerSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let rate = |rate: f64| rate > 0.0 && rate <= 1.0;
        let checks = [
            (!self.window.is_zero(), "window", "longer than zero"),
            ((1..=1_000).contains(&self.buckets), "buckets", "from 1 to 1000"),
            (self.min_calls > 0, "min_calls", "at least 1"),
            (
                self.window_calls.is_none_or(|calls| (1..=MOST_CALLS).contains(&calls)),
                "window_calls",
                "from 1 to 100000",
            ),
            (
                self.window_calls.is_none_or(|calls| self.min_calls <= calls),
                "min_calls",
                "at most window_calls",
            ),
            (rate(self.failure_rate), "failure_rate", "above 0 and at most 1"),
            (rate(self.slow_rate), "slow_rate", "above 0 and at most 1"),
            (self.slow_call.is_none_or(|slow| !slow.is_zero()), "slow_call", "longer than zero"),
            (!self.open_for.is_zero(), "open_for", "longer than zero"),
            (self.open_max >= self.open_for, "open_max", "at least open_for"),
            (self.half_open_permits > 0, "half_open_permits", "at least 1"),
            (self.successes_to_close > 0, "successes_to_close", "at least 1"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, setting, expected)) => Err(InvalidSettings { setting, expected }),
            None => Ok(()),
        }
    }

    /// The nearest settings that pass [`BreakerSettings::validate`].
    pub(super) fn clamped(mut self) -> Self {
        let tick = Duration::from_millis(1);
        let rate = |rate: f64| if rate > 0.0 { rate.min(1.0) } else { 1.0 };
        self.window = self.window.max(tick);
        self.buckets = self.buckets.clamp(1, 1_000);
        self.window_calls = self.window_calls.map(|calls| calls.clamp(1, MOST_CALLS));
        self.min_calls = self.min_calls.clamp(1, self.window_calls.unwrap_or(u32::MAX));
        self.failure_rate = rate(self.failure_rate);
        self.slow_rate = rate(self.slow_rate);
        self.slow_call = self.slow_call.map(|slow| slow.max(tick));
        self.open_for = self.open_for.max(tick);
        self.open_max = self.open_max.max(self.open_for);
        self.half_open_permits = self.half_open_permits.max(1);
        self.successes_to_close = self.successes_to_close.max(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(BreakerSettings::default().validate(), Ok(()));
    }

    #[test]
    fn names_the_wrong_setting_and_clamping_mends_it() {
        type Spoil = fn(&mut BreakerSettings);
        let table: [(&str, Spoil); 13] = [
            ("window_calls", |s| s.window_calls = Some(0)),
            ("min_calls", |s| s.window_calls = Some(s.min_calls - 1)),
            ("window", |s| s.window = Duration::ZERO),
            ("buckets", |s| s.buckets = 0),
            ("min_calls", |s| s.min_calls = 0),
            ("failure_rate", |s| s.failure_rate = 0.0),
            ("failure_rate", |s| s.failure_rate = f64::NAN),
            ("slow_rate", |s| s.slow_rate = 1.1),
            ("slow_call", |s| s.slow_call = Some(Duration::ZERO)),
            ("open_for", |s| s.open_for = Duration::ZERO),
            ("open_max", |s| s.open_max = Duration::ZERO),
            ("half_open_permits", |s| s.half_open_permits = 0),
            ("successes_to_close", |s| s.successes_to_close = 0),
        ];
        for (setting, spoil) in table {
            let mut settings = BreakerSettings::default();
            spoil(&mut settings);
            let error = settings.validate().unwrap_err();
            assert_eq!(error.setting, setting);
            assert_eq!(settings.clamped().validate(), Ok(()));
        }
    }
}
