//! What holds the calls of a client back at once: a rate, a throttle, a measured limit.

use chassis_core::Result;
use chassis_resilience::adaptive::AdaptiveSettings;
use chassis_resilience::rate_limit::RateLimit;
use chassis_resilience::throttle::ThrottleSettings;
use serde::{Deserialize, Serialize};

use crate::limits::within;

/// How often a client calls at most, where the callee allows only so much.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CallRateConfig {
    /// Whether there is a limit. Off unless it is asked for: only who knows the callee knows
    /// what it allows.
    pub enabled: bool,
    /// Calls a second, with retries, in the long run. 1 to 1000000.
    pub per_second: u32,
    /// Calls that may go out at once. 1 to 1000000.
    pub burst: u32,
}

impl Default for CallRateConfig {
    fn default() -> CallRateConfig {
        CallRateConfig { enabled: false, per_second: 100, burst: 20 }
    }
}

impl CallRateConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        within(&format!("{path}.per_second"), self.per_second, 1..=1_000_000)?;
        within(&format!("{path}.burst"), self.burst, 1..=1_000_000)
    }

    pub(crate) fn limit(&self) -> Option<RateLimit> {
        self.enabled.then(|| RateLimit::per_second(self.per_second).burst(self.burst))
    }
}

/// Sending a callee that refuses a part of the calls less, instead of nothing, as the book on
/// site reliability does. Beside the breakers, which judge each endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleConfig {
    /// Whether calls are held back by chance while many fail. Off unless it is asked for: most
    /// callees are well or gone, and the breakers find that out sooner.
    pub enabled: bool,
    /// Up to so many calls go out for each that succeeds. 1.0 to 100.0.
    pub k: f64,
}

impl Default for ThrottleConfig {
    fn default() -> ThrottleConfig {
        ThrottleConfig::from(ThrottleSettings::default())
    }
}

impl From<ThrottleSettings> for ThrottleConfig {
    fn from(settings: ThrottleSettings) -> ThrottleConfig {
        ThrottleConfig { enabled: false, k: settings.k }
    }
}

impl ThrottleConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        within(&format!("{path}.k"), self.k, 1.0..=100.0)
    }

    pub(crate) fn settings(&self) -> Option<ThrottleSettings> {
        self.enabled.then(|| ThrottleSettings { k: self.k, ..ThrottleSettings::default() })
    }
}

/// A limit on calls under way that is measured, below `max_concurrent`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaptiveConfig {
    /// Whether it is measured. Off unless it is asked for: it takes a rise of the latency for
    /// load, which is only right where calls take about the same time.
    pub enabled: bool,
    /// The limit never falls below this. 1 to 100000.
    pub min_limit: u32,
    /// The limit at the start. `min_limit` to `max_limit`.
    pub initial_limit: u32,
    /// The limit never rises above this. `min_limit` to 100000.
    pub max_limit: u32,
    /// By which part the median latency may rise before the limit falls. 0.0 to 10.0.
    pub margin: f64,
}

impl Default for AdaptiveConfig {
    fn default() -> AdaptiveConfig {
        AdaptiveConfig::from(AdaptiveSettings::default())
    }
}

impl From<AdaptiveSettings> for AdaptiveConfig {
    fn from(settings: AdaptiveSettings) -> AdaptiveConfig {
        AdaptiveConfig {
            enabled: false,
            min_limit: settings.min_limit,
            initial_limit: settings.initial_limit.min(settings.max_limit),
            max_limit: settings.max_limit,
            margin: settings.margin,
        }
    }
}

impl AdaptiveConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        const MOST: u32 = 100_000;
        let key = |name: &str| format!("{path}.{name}");
        within(&key("min_limit"), self.min_limit, 1..=MOST)?;
        within(&key("max_limit"), self.max_limit, self.min_limit..=MOST)?;
        within(&key("initial_limit"), self.initial_limit, self.min_limit..=self.max_limit)?;
        within(&key("margin"), self.margin, 0.0..=10.0)
    }

    pub(crate) fn settings(&self) -> Option<AdaptiveSettings> {
        self.enabled.then(|| AdaptiveSettings {
            min_limit: self.min_limit,
            initial_limit: self.initial_limit,
            max_limit: self.max_limit,
            margin: self.margin,
            ..AdaptiveSettings::default()
        })
    }
}
