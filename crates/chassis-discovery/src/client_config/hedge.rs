//! When a call is asked a second time although the first may still answer.

use std::time::Duration;

use chassis_core::Result;
use chassis_core::config::duration;
use chassis_resilience::hedge::HedgeSettings;
use serde::{Deserialize, Serialize};

use super::{MINUTE, SHORTEST};
use crate::limits::within;

/// Settings of hedging, as a configuration file writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct HedgeConfig {
    /// Whether calls that are safe to repeat are asked a second time when they are late. Off
    /// unless it is asked for: it costs load, and a callee should know about it.
    pub enabled: bool,
    /// The share of calls that answer before a second one is sent. 0.5 to 0.999.
    pub quantile: f64,
    /// No second one is sent before. 1ms to 1m.
    #[serde(with = "duration")]
    pub min_delay: Duration,
}

impl Default for HedgeConfig {
    fn default() -> HedgeConfig {
        HedgeConfig::from(None)
    }
}

impl From<Option<HedgeSettings>> for HedgeConfig {
    fn from(settings: Option<HedgeSettings>) -> HedgeConfig {
        let enabled = settings.is_some();
        let HedgeSettings { quantile, min_delay, .. } = settings.unwrap_or_default();
        HedgeConfig { enabled, quantile, min_delay }
    }
}

impl HedgeConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        within(&format!("{path}.quantile"), self.quantile, 0.5..=0.999)?;
        within(&format!("{path}.min_delay"), self.min_delay, SHORTEST..=MINUTE)
    }

    /// The settings of the hedge, if it is enabled.
    pub fn settings(&self) -> Option<HedgeSettings> {
        self.enabled.then(|| HedgeSettings {
            quantile: self.quantile,
            min_delay: self.min_delay,
            ..HedgeSettings::default()
        })
    }
}
