//! The numbers of a client, the same for HTTP and gRPC.
//!
//! They are one struct because a caller thinks of one dependency at a time: how
//! long may it take, how often may it be tried, how much of me may it occupy.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use chassis_resilience::breaker::BreakerSettings;
use chassis_resilience::retry::{Backoff, BudgetSettings, RetryBudget, RetrySettings};
use serde::{Deserialize, Serialize};

use crate::limits::within;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(600);

/// Settings of a client for one service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// The whole call with all attempts and pauses. 1ms to 10m. The caller's own
    /// deadline holds too, if it is shorter.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// One attempt. 1ms up to `timeout`.
    #[serde(with = "duration")]
    pub attempt_timeout: Duration,
    /// Attempts, the first one included. 1 (never retry) to 10.
    pub max_attempts: u32,
    /// Retries as a share of calls, beyond a small fixed rate. 0.0 to 1.0.
    pub retry_budget: f64,
    /// The pause before the first retry at most; it doubles with each one. 0s to 1m.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// The longest pause between two attempts. `backoff` to 10m.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// Calls that may be under way at a time. 1 to 100000.
    pub max_concurrent: usize,
    /// How long a call waits for its turn when that many are under way. 0s to
    /// 1m.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// The circuit breaker of each endpoint.
    pub breaker: BreakerConfig,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(2),
            max_attempts: 3,
            retry_budget: 0.2,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            max_concurrent: 256,
            max_wait: Duration::from_millis(100),
            breaker: BreakerConfig::default(),
        }
    }
}

impl ClientConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as
    /// `clients.greeter`, the value and the allowed range.
    pub fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        within(&key("timeout"), self.timeout, SHORTEST..=LONGEST)?;
        within(&key("attempt_timeout"), self.attempt_timeout, SHORTEST..=self.timeout)?;
        within(&key("max_attempts"), self.max_attempts, 1..=10)?;
        within(&key("retry_budget"), self.retry_budget, 0.0..=1.0)?;
        let minute = Duration::from_secs(60);
        within(&key("backoff"), self.backoff, Duration::ZERO..=minute)?;
        within(&key("backoff_max"), self.backoff_max, self.backoff..=LONGEST)?;
        within(&key("max_concurrent"), self.max_concurrent, 1..=100_000)?;
        within(&key("max_wait"), self.max_wait, Duration::ZERO..=minute)?;
        self.breaker.validate(&key("breaker"))
    }

    /// The settings of the retry layer.
    pub fn retry_settings(&self) -> RetrySettings {
        RetrySettings {
            max_attempts: self.max_attempts,
            backoff: Backoff { base: self.backoff, cap: self.backoff_max, factor: 2.0 },
            // Nobody waits longer than this, so neither does a server's wish.
            max_retry_after: self.timeout,
        }
    }

    /// A new retry budget; clones of it share one balance.
    pub fn retry_budget(&self) -> RetryBudget {
        RetryBudget::new(BudgetSettings { ratio: self.retry_budget, ..BudgetSettings::default() })
    }
}

/// Settings of a circuit breaker, as a configuration file writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerConfig {
    /// The span of time that the rates look back on. 1s to 10m.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Below this many calls in the window the rates say nothing. 1 to 100000.
    pub min_calls: u32,
    /// The share of failed calls that opens the circuit. Above 0.0, up to 1.0.
    pub failure_rate: f64,
    /// This many failures in a row open it too. 1 to 1000.
    pub consecutive_failures: u32,
    /// How long it stays open the first time. 10ms up to `open_max`.
    #[serde(with = "duration")]
    pub open_for: Duration,
    /// How long it stays open at most, after many times. Up to 10m.
    #[serde(with = "duration")]
    pub open_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> BreakerConfig {
        let settings = BreakerSettings::default();
        BreakerConfig {
            window: settings.window,
            min_calls: settings.min_calls,
            failure_rate: settings.failure_rate,
            consecutive_failures: settings.consecutive_failures,
            open_for: settings.open_for,
            open_max: settings.open_max,
        }
    }
}

impl BreakerConfig {
    fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        let second = Duration::from_secs(1);
        within(&key("window"), self.window, second..=LONGEST)?;
        within(&key("min_calls"), self.min_calls, 1..=100_000)?;
        within(&key("failure_rate"), self.failure_rate, 0.001..=1.0)?;
        within(&key("consecutive_failures"), self.consecutive_failures, 1..=1000)?;
        let shortest = Duration::from_millis(10);
        within(&key("open_max"), self.open_max, shortest..=LONGEST)?;
        within(&key("open_for"), self.open_for, shortest..=self.open_max)
    }

    /// The settings of the breaker itself; what is not configurable has its
    /// default.
    pub fn settings(&self) -> BreakerSettings {
        BreakerSettings {
            window: self.window,
            min_calls: self.min_calls,
            failure_rate: self.failure_rate,
            consecutive_failures: self.consecutive_failures,
            open_for: self.open_for,
            open_max: self.open_max,
            ..BreakerSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = ClientConfig::default();
        config.validate("client").unwrap();
        config.breaker.settings().validate().unwrap();
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Change = fn(&mut ClientConfig);
        let cases: [(&str, Change); 9] = [
            ("timeout", |c| c.timeout = Duration::ZERO),
            ("attempt_timeout", |c| {
                c.attempt_timeout = c.timeout + Duration::from_secs(1);
            }),
            ("max_attempts", |c| c.max_attempts = 0),
            ("retry_budget", |c| c.retry_budget = 1.5),
            ("retry_budget", |c| c.retry_budget = f64::NAN),
            ("max_concurrent", |c| c.max_concurrent = 0),
            ("max_wait", |c| c.max_wait = Duration::from_secs(3600)),
            ("breaker.failure_rate", |c| c.breaker.failure_rate = 0.0),
            ("breaker.open_for", |c| {
                c.breaker.open_for = c.breaker.open_max * 2;
            }),
        ];
        for (name, change) in cases {
            let mut config = ClientConfig::default();
            change(&mut config);
            let error = config.validate("clients.greeter").unwrap_err();
            let message = error.message();
            assert!(message.starts_with(&format!("clients.greeter.{name} is ")), "{message}");
            assert!(message.contains("allowed is"), "{message}");
        }
    }
}
