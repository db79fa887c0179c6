//! The numbers that every registry needs.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use serde::{Deserialize, Serialize};

use crate::limits::within;

/// How patient this process is with a registry, and a registry with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryConfig {
    /// An instance that says nothing for this long is gone. It says something
    /// three times as often. 2s to 10m, in whole seconds.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// An endpoint that is missing after the registry was away stays this long:
    /// a registry that comes back empty must not empty every client. 0s to 1h.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// The complete set is asked for this often, whatever was heard in between:
    /// a connection may be dead without a sign. 1s to 1h.
    #[serde(with = "duration")]
    pub resync: Duration,
    /// How long one request may take. 10ms to 10s.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        RegistryConfig {
            // Two lost heartbeats and a pause of the process fit into it.
            lease: Duration::from_secs(15),
            // Everybody who lives has registered anew by then.
            grace: Duration::from_secs(30),
            resync: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

impl RegistryConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key, the value and the allowed range.
    pub fn validate(&self) -> Result<()> {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        within("discovery.registry.lease", self.lease, 2 * second..=600 * second)?;
        within("discovery.registry.grace", self.grace, Duration::ZERO..=hour)?;
        within("discovery.registry.resync", self.resync, second..=hour)?;
        let shortest = Duration::from_millis(10);
        within("discovery.registry.timeout", self.timeout, shortest..=10 * second)
    }

    /// How often an instance says that it lives.
    #[cfg(any(feature = "etcd", feature = "consul"))]
    pub(crate) fn heartbeat(&self) -> Duration {
        self.lease / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_named_with_what_is_allowed() {
        type Change = fn(&mut RegistryConfig);
        let cases: [(&str, Change); 4] = [
            ("lease is 1s, allowed is 2s to 600s", |c| c.lease = Duration::from_secs(1)),
            ("grace is", |c| c.grace = Duration::from_secs(4000)),
            ("resync is 0ns", |c| c.resync = Duration::ZERO),
            ("timeout is", |c| c.timeout = Duration::ZERO),
        ];
        RegistryConfig::default().validate().unwrap();
        for (expected, change) in cases {
            let mut config = RegistryConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            let message = error.message();
            assert!(message.starts_with(&format!("discovery.registry.{expected}")), "{message}");
            assert!(message.contains("allowed is"), "{message}");
        }
    }
}
