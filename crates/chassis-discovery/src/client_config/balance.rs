//! Which endpoint gets a call.

use chassis_core::Result;
use serde::{Deserialize, Serialize};

use crate::BalanceSettings;
use crate::limits::within;

/// Settings of a balancer, as a configuration file writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BalanceConfig {
    /// Most of the endpoints that are walked past because their circuit is open. 0.0 to 1.0.
    pub max_ejected: f64,
    /// Below this share of closed circuits calls go to all endpoints again. 0.0 to 1.0.
    pub panic_below: f64,
    /// The zone that this process runs in; its endpoints are preferred. Empty: that of
    /// `discovery.advertise.zone`; where that is empty too, no zone is preferred.
    pub zone: String,
    /// A call leaves the zone when it is loaded so many times more than the rest. 1.0 to
    /// 1000.0.
    pub zone_spill: f64,
    /// Use at most so many endpoints of the zone and as many of the others. 0 (all) to
    /// 100000.
    pub subset: usize,
}

impl Default for BalanceConfig {
    fn default() -> BalanceConfig {
        let settings = BalanceSettings::default();
        BalanceConfig {
            max_ejected: settings.max_ejected,
            panic_below: settings.panic_below,
            zone: String::new(),
            zone_spill: settings.zone_spill,
            subset: settings.subset,
        }
    }
}

impl BalanceConfig {
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        within(&key("max_ejected"), self.max_ejected, 0.0..=1.0)?;
        within(&key("panic_below"), self.panic_below, 0.0..=1.0)?;
        within(&key("zone_spill"), self.zone_spill, 1.0..=1000.0)?;
        within(&key("subset"), self.subset, 0..=100_000)
    }

    pub(super) fn settings(&self) -> BalanceSettings {
        BalanceSettings {
            max_ejected: self.max_ejected,
            panic_below: self.panic_below,
            zone: (!self.zone.is_empty()).then(|| self.zone.clone()),
            zone_spill: self.zone_spill,
            subset: self.subset,
            ..BalanceSettings::default()
        }
    }
}
