//! The settings of a door.

use std::{collections::BTreeMap, fmt::Debug, ops::RangeInclusive, time::Duration};

use chassis_core::{Error, Priority, Result, config::duration};
use chassis_resilience::{
    AdaptiveSettings, RateLimit, ShedSettings,
    rate_limit::shared::{OnStoreDown, SharedSettings},
};
use serde::{Deserialize, Serialize};

use crate::networks::Networks;

/// Which calls a server lets in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdmissionConfig {
    /// Networks such as `10.0.0.0/8` whose callers may say that a call is critical, and stand
    /// for many others, so that no rate limit holds for them. Empty: nobody.
    pub trusted_peers: Vec<String>,
    /// How important a route is: `sheddable`, `normal`, `critical` or `exempt`. HTTP routes by
    /// their template, such as `/items/{id}`; gRPC by method or service, such as
    /// `items.v1.Items/Get`.
    pub priorities: BTreeMap<String, RoutePriority>,
    /// Refusing what there is no room for.
    pub shed: ShedConfig,
    /// How often one caller may call.
    pub rate_limit: RateLimitConfig,
}

/// How important the calls of a route are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutePriority {
    /// Can be left out.
    Sheddable,
    /// Usual calls.
    #[default]
    Normal,
    /// Refused last.
    Critical,
    /// Never refused and not counted: what tells whether the process lives.
    Exempt,
}

impl RoutePriority {
    pub(crate) fn priority(self) -> Option<Priority> {
        match self {
            RoutePriority::Sheddable => Some(Priority::Sheddable),
            RoutePriority::Normal => Some(Priority::Normal),
            RoutePriority::Critical => Some(Priority::Critical),
            RoutePriority::Exempt => None,
        }
    }
}

/// Refusing what there is no room for, by a measured limit on calls under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ShedConfig {
    /// Whether calls are refused. Off unless it is asked for: the limit follows the latency, and
    /// only who knows the routes can say that it rises by load and not by what is asked.
    pub enabled: bool,
    /// The limit never falls below this. 1 to 1000000.
    pub min_limit: u32,
    /// The limit at the start. `min_limit` to `max_limit`.
    pub initial_limit: u32,
    /// The limit never rises above this. `min_limit` to 1000000.
    pub max_limit: u32,
    /// By which part the median latency may rise before the limit falls. 0.0 to 10.0.
    pub margin: f64,
    /// The share of the limit that normal calls may use; the rest is for critical ones. 0.1 to
    /// 1.0.
    pub normal_share: f64,
    /// The share of the limit that sheddable calls may use. 0.0 to `normal_share`.
    pub sheddable_share: f64,
    /// How long a task may wait for a processor for long before the limit shrinks: where the
    /// processor is what is short. 1ms to 10s.
    #[serde(with = "duration")]
    pub queue_delay: Duration,
}

impl Default for ShedConfig {
    fn default() -> ShedConfig {
        let ShedSettings { adaptive, normal_share, sheddable_share, queue_delay } =
            ShedSettings::default();
        ShedConfig {
            enabled: false,
            min_limit: adaptive.min_limit,
            initial_limit: adaptive.initial_limit,
            max_limit: adaptive.max_limit,
            margin: adaptive.margin,
            normal_share,
            sheddable_share,
            queue_delay,
        }
    }
}

impl ShedConfig {
    pub(crate) fn settings(&self) -> ShedSettings {
        ShedSettings {
            adaptive: AdaptiveSettings {
                min_limit: self.min_limit,
                initial_limit: self.initial_limit,
                max_limit: self.max_limit,
                margin: self.margin,
                ..AdaptiveSettings::default()
            },
            normal_share: self.normal_share,
            sheddable_share: self.sheddable_share,
            queue_delay: self.queue_delay,
        }
    }

    fn validate(&self, path: &str) -> Result<()> {
        const MOST: u32 = 1_000_000;
        let key = |name: &str| format!("{path}.{name}");
        within(&key("min_limit"), self.min_limit, 1..=MOST)?;
        within(&key("max_limit"), self.max_limit, self.min_limit..=MOST)?;
        within(&key("initial_limit"), self.initial_limit, self.min_limit..=self.max_limit)?;
        within(&key("margin"), self.margin, 0.0..=10.0)?;
        within(&key("normal_share"), self.normal_share, 0.1..=1.0)?;
        within(&key("sheddable_share"), self.sheddable_share, 0.0..=self.normal_share)?;
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(10));
        within(&key("queue_delay"), self.queue_delay, shortest..=longest)
    }
}

/// How often one caller may call. A caller is an address, or the /64 of one of IPv6.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimitConfig {
    /// Whether there is a limit. Off unless it is asked for: only who runs the service knows
    /// how many callers stand behind one address.
    pub enabled: bool,
    /// Calls a second of one caller, in the long run. 1 to 1000000.
    pub per_second: u32,
    /// Calls that may come at once. 1 to 1000000.
    pub burst: u32,
    /// Callers that are remembered; newcomers beyond that share one limit. 1 to 10000000.
    pub max_callers: usize,
    /// Where the limit is shared: calls that are paid for at a time. 1 to 100000.
    pub lease: u32,
    /// Where the limit is shared: instances among which it is divided while the store is down.
    /// 1 to 10000; 0 refuses every call meanwhile.
    pub instances: u32,
}

impl Default for RateLimitConfig {
    fn default() -> RateLimitConfig {
        let shared = SharedSettings::default();
        RateLimitConfig {
            enabled: false,
            // Ten times what a person at a page causes.
            per_second: 100,
            burst: 200,
            max_callers: 100_000,
            // Short of the burst of a caller, so that one instance does not hold all of it.
            lease: 20,
            instances: match shared.on_store_down {
                OnStoreDown::LocalShare { instances } => instances,
                OnStoreDown::Refuse => 0,
            },
        }
    }
}

impl RateLimitConfig {
    pub(crate) fn limit(&self) -> RateLimit {
        RateLimit::per_second(self.per_second).burst(self.burst)
    }

    pub(crate) fn shared(&self) -> SharedSettings {
        SharedSettings {
            lease_tokens: self.lease,
            max_keys: self.max_callers,
            on_store_down: match self.instances {
                0 => OnStoreDown::Refuse,
                instances => OnStoreDown::LocalShare { instances },
            },
            ..SharedSettings::default()
        }
    }

    fn validate(&self, path: &str) -> Result<()> {
        let key = |name: &str| format!("{path}.{name}");
        within(&key("per_second"), self.per_second, 1..=1_000_000)?;
        within(&key("burst"), self.burst, 1..=1_000_000)?;
        within(&key("max_callers"), self.max_callers, 1..=10_000_000)?;
        within(&key("lease"), self.lease, 1..=100_000)?;
        within(&key("instances"), self.instances, 0..=10_000)
    }
}

impl AdmissionConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `http.admission`, the
    /// value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        self.networks(path)?;
        self.shed.validate(&format!("{path}.shed"))?;
        self.rate_limit.validate(&format!("{path}.rate_limit"))
    }

    pub(crate) fn networks(&self, path: &str) -> Result<Networks> {
        Networks::parse(&self.trusted_peers).map_err(|text| {
            Error::invalid_argument(
                "INVALID_CONFIG",
                format!(
                    "{path}.trusted_peers has `{text}`, allowed are addresses and networks such \
                     as 10.0.0.0/8"
                ),
            )
        })
    }
}

fn within<T: PartialOrd + Debug>(key: &str, value: T, allowed: RangeInclusive<T>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "INVALID_CONFIG",
        format!("{key} is {value:?}, allowed is {:?} to {:?}", allowed.start(), allowed.end()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_refuses_nothing() {
        let config = AdmissionConfig::default();
        config.validate("http.admission").unwrap();
        assert!(!config.shed.enabled && !config.rate_limit.enabled);
        assert_eq!(config.shed.settings(), ShedSettings::default());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        type Change = fn(&mut AdmissionConfig);
        let cases: [(&str, Change); 15] = [
            ("trusted_peers", |c| c.trusted_peers = vec!["10.0.0.0/33".to_owned()]),
            ("shed.min_limit", |c| c.shed.min_limit = 0),
            ("shed.initial_limit", |c| c.shed.initial_limit = c.shed.min_limit - 1),
            ("shed.max_limit", |c| c.shed.max_limit = 1_000_001),
            ("shed.margin", |c| c.shed.margin = f64::NAN),
            ("shed.margin", |c| c.shed.margin = -0.1),
            ("shed.normal_share", |c| c.shed.normal_share = 0.0),
            ("shed.sheddable_share", |c| c.shed.sheddable_share = 1.0),
            ("shed.queue_delay", |c| c.shed.queue_delay = Duration::ZERO),
            ("rate_limit.per_second", |c| c.rate_limit.per_second = 0),
            ("rate_limit.burst", |c| c.rate_limit.burst = 0),
            ("rate_limit.max_callers", |c| c.rate_limit.max_callers = 0),
            ("rate_limit.lease", |c| c.rate_limit.lease = 0),
            ("rate_limit.lease", |c| c.rate_limit.lease = 100_001),
            ("rate_limit.instances", |c| c.rate_limit.instances = 10_001),
        ];
        for (name, change) in cases {
            let mut config = AdmissionConfig::default();
            change(&mut config);
            let error = config.validate("http.admission").unwrap_err();
            let message = error.message();
            assert!(message.starts_with(&format!("http.admission.{name} ")), "{message}");
            assert!(message.contains("allowed "), "{message}");
        }
    }
}
