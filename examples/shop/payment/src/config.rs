//! Settings, with defaults that work on a machine with nothing installed.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use chassis::Result;
use chassis::core::Error;
use chassis::core::config::duration;
use chassis::data::DatabaseConfig;
use chassis::discovery::{ClientConfig, DiscoveryConfig};
use chassis::grpc::ServerConfig;
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how gRPC is served.
    pub grpc: ServerConfig,
    /// The database of this service.
    pub database: DatabaseConfig,
    /// Where this service makes itself known.
    pub discovery: DiscoveryConfig,
    /// The provider that takes the money, and how it is called.
    pub provider: ProviderConfig,
    /// When what a crash has left halfway is finished.
    pub settle: SettleConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grpc: ServerConfig { port: 50053, ..ServerConfig::default() },
            database: DatabaseConfig::url("sqlite://data/payment.db?mode=rwc"),
            discovery: DiscoveryConfig::default(),
            provider: ProviderConfig::default(),
            settle: SettleConfig::default(),
        }
    }
}

/// Settings of the provider: how moody it is, and how it is called.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderConfig {
    /// Timeouts, retries, places and circuit breaker around the provider.
    pub client: ClientConfig,
    /// The share of calls that fail. 0.0 to 1.0.
    pub fail_share: f64,
    /// The share of calls that are slow. 0.0 to 1.0; with `fail_share` at most
    /// 1.0.
    pub slow_share: f64,
    /// How slow a slow call is. Up to 1m.
    #[serde(with = "duration")]
    pub slow_for: Duration,
    /// The same seed gives the same moods in the same order.
    pub seed: u64,
}

impl Default for ProviderConfig {
    /// Shorter than a client of ours: our caller waits two seconds for an
    /// attempt, and an answer after that is an answer to nobody. Three attempts
    /// of half a second, and the pauses between them, fit in.
    fn default() -> ProviderConfig {
        ProviderConfig {
            client: ClientConfig {
                timeout: Duration::from_millis(1_800),
                attempt_timeout: Duration::from_millis(500),
                backoff: Duration::from_millis(25),
                backoff_max: Duration::from_millis(100),
                // A provider sells a number of places, not a number of calls.
                max_concurrent: 32,
                ..ClientConfig::default()
            },
            fail_share: 0.1,
            slow_share: 0.1,
            slow_for: Duration::from_millis(250),
            seed: 1,
        }
    }
}

impl ProviderConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key, the value and the range.
    pub fn validate(&self) -> Result<()> {
        self.client.validate("provider.client")?;
        within("provider.fail_share", self.fail_share, 0.0..=1.0)?;
        within("provider.slow_share", self.slow_share, 0.0..=1.0)?;
        let both = self.fail_share + self.slow_share;
        within("provider.fail_share + provider.slow_share", both, 0.0..=1.0)?;
        within("provider.slow_for", self.slow_for, Duration::ZERO..=Duration::from_secs(60))
    }
}

/// Settings of the settler.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SettleConfig {
    /// The pause between two looks. 100ms to 1h.
    #[serde(with = "duration")]
    pub every: Duration,
    /// How long a charge may be without an outcome before the settler asks:
    /// longer than a caller's own attempts, or both ask. 1s to 1h.
    #[serde(with = "duration")]
    pub after: Duration,
    /// Charges that one look takes on at most. 1 to 1000.
    pub batch: i64,
}

impl Default for SettleConfig {
    fn default() -> SettleConfig {
        SettleConfig { every: Duration::from_secs(10), after: Duration::from_secs(30), batch: 20 }
    }
}

impl SettleConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key, the value and the range.
    pub fn validate(&self) -> Result<()> {
        let hour = Duration::from_secs(3_600);
        within("settle.every", self.every, Duration::from_millis(100)..=hour)?;
        within("settle.after", self.after, Duration::from_secs(1)..=hour)?;
        within("settle.batch", self.batch, 1..=1_000)
    }
}

fn within<T: PartialOrd + Debug>(key: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::invalid_argument(
        "INVALID_CONFIG",
        format!("{key} is {value:?}, allowed is {least:?} to {most:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().provider.validate().unwrap();
        Config::default().settle.validate().unwrap();
    }

    #[test]
    fn all_attempts_and_pauses_fit_into_the_whole_call() {
        let client = ProviderConfig::default().client;
        let longest =
            (client.attempt_timeout + client.max_wait + client.backoff_max) * client.max_attempts;
        assert!(client.timeout >= client.attempt_timeout * client.max_attempts);
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Change = fn(&mut ProviderConfig);
        let cases: [(&str, Change); 6] = [
            ("provider.fail_share is", |c| c.fail_share = 1.1),
            ("provider.fail_share is", |c| c.fail_share = f64::NAN),
            ("provider.slow_share is", |c| c.slow_share = -0.1),
            ("provider.fail_share + provider.slow_share is", |c| {
                (c.fail_share, c.slow_share) = (0.6, 0.6);
            }),
            ("provider.slow_for is", |c| c.slow_for = Duration::from_secs(61)),
            ("provider.client.max_attempts is", |c| c.client.max_attempts = 0),
        ];
        for (expected, change) in cases {
            let mut config = ProviderConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.message().starts_with(expected), "{}", error.message());
        }
    }
}
