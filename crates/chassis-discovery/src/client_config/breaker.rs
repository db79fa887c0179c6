//! When the circuit to one endpoint opens, and when it closes again.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use chassis_resilience::breaker::BreakerSettings;
use serde::{Deserialize, Serialize};

use super::LONGEST;
use crate::limits::within;

const MOST_CALLS: u32 = 100_000;

/// Settings of a circuit breaker, as a configuration file writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerConfig {
    /// The span of time that the rates look back on. 1s to 10m.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Look back on so many calls instead, however long ago they were. 0 (on the span of time)
    /// to 100000.
    pub window_calls: u32,
    /// Below this many calls in the window the rates say nothing. 1 to 100000, at most
    /// `window_calls` if there are some.
    pub min_calls: u32,
    /// The share of failed calls that opens the circuit. Above 0.0, up to 1.0.
    pub failure_rate: f64,
    /// This many failures in a row open it too. 1 to 1000.
    pub consecutive_failures: u32,
    /// From this time on a call is slow. 0s (no call is) to 10m.
    #[serde(with = "duration")]
    pub slow_call: Duration,
    /// The share of slow calls that opens the circuit. Above 0.0, up to 1.0.
    pub slow_rate: f64,
    /// How long it stays open the first time. 10ms up to `open_max`.
    #[serde(with = "duration")]
    pub open_for: Duration,
    /// How long it stays open at most, after many times. Up to 10m.
    #[serde(with = "duration")]
    pub open_max: Duration,
    /// Trial calls that may be under way at a time once the open time is over. 1 to 1000.
    pub half_open_permits: u32,
    /// Trial calls that must succeed to close it. 1 to 1000.
    pub successes_to_close: u32,
}

impl Default for BreakerConfig {
    fn default() -> BreakerConfig {
        BreakerConfig::from(BreakerSettings::default())
    }
}

impl From<BreakerSettings> for BreakerConfig {
    fn from(settings: BreakerSettings) -> BreakerConfig {
        BreakerConfig {
            window: settings.window,
            window_calls: settings.window_calls.unwrap_or_default(),
            min_calls: settings.min_calls,
            failure_rate: settings.failure_rate,
            consecutive_failures: settings.consecutive_failures,
            slow_call: settings.slow_call.unwrap_or_default(),
            slow_rate: settings.slow_rate,
            open_for: settings.open_for,
            open_max: settings.open_max,
            half_open_permits: settings.half_open_permits,
            successes_to_close: settings.successes_to_close,
        }
    }
}

impl BreakerConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        let second = Duration::from_secs(1);
        within(&key("window"), self.window, second..=LONGEST)?;
        within(&key("window_calls"), self.window_calls, 0..=MOST_CALLS)?;
        let in_window = if self.window_calls > 0 { self.window_calls } else { MOST_CALLS };
        within(&key("min_calls"), self.min_calls, 1..=in_window)?;
        within(&key("failure_rate"), self.failure_rate, 0.001..=1.0)?;
        within(&key("consecutive_failures"), self.consecutive_failures, 1..=1000)?;
        within(&key("slow_call"), self.slow_call, Duration::ZERO..=LONGEST)?;
        within(&key("slow_rate"), self.slow_rate, 0.001..=1.0)?;
        let shortest = Duration::from_millis(10);
        within(&key("open_max"), self.open_max, shortest..=LONGEST)?;
        within(&key("open_for"), self.open_for, shortest..=self.open_max)?;
        within(&key("half_open_permits"), self.half_open_permits, 1..=1000)?;
        within(&key("successes_to_close"), self.successes_to_close, 1..=1000)
    }

    /// The settings of the breaker itself; what is not configurable has its
    /// default.
    pub fn settings(&self) -> BreakerSettings {
        BreakerSettings {
            window: self.window,
            window_calls: (self.window_calls > 0).then_some(self.window_calls),
            min_calls: self.min_calls,
            failure_rate: self.failure_rate,
            consecutive_failures: self.consecutive_failures,
            slow_call: (!self.slow_call.is_zero()).then_some(self.slow_call),
            slow_rate: self.slow_rate,
            open_for: self.open_for,
            open_max: self.open_max,
            half_open_permits: self.half_open_permits,
            successes_to_close: self.successes_to_close,
            ..BreakerSettings::default()
        }
    }
}
