//! The numbers of a balancer.

use std::time::Duration;

use chassis_resilience::breaker::BreakerSettings;

/// How a [`Balance`](super::Balance) picks, and when it walks past an endpoint.
#[derive(Clone, Debug)]
pub struct BalanceSettings {
    /// Most of the endpoints that are walked past because their circuit is open, as a share
    /// from 0 to 1. One is in any case, unless this is 0.
    pub max_ejected: f64,
    /// Below this share of closed circuits, 0 to 1, calls go to all endpoints again. When no
    /// circuit is closed they go to none.
    pub panic_below: f64,
    /// The zone that this process runs in: endpoints of the same zone are preferred.
    pub zone: Option<String>,
    /// A call leaves the zone when the better of two endpoints in it is loaded so many times
    /// more than the better of two elsewhere.
    pub zone_spill: f64,
    /// Use at most so many endpoints of the own zone and as many of the others. 0: all.
    pub subset: usize,
    /// Decides which: the same seed chooses the same endpoints.
    pub seed: u64,
    /// The circuit breaker of each endpoint.
    pub breaker: BreakerSettings,
    /// A call that is dropped after so long counts as a failure of its endpoint, one that is
    /// dropped earlier only says that it would have taken longer: something shorter than the
    /// timeout above.
    pub hung_after: Duration,
    /// How long it is waited for a connection that is tried to an endpoint which could not be
    /// connected to; and how long calls wait for one that is back, from the moment when none
    /// could be connected to any more.
    pub connect_timeout: Duration,
}

impl Default for BalanceSettings {
    /// Half may be ejected: circuits open on real calls, so more than Envoy's tenth is safe,
    /// and beyond half the load moves to too few. A quarter is where the rest is feared for;
    /// Envoy's half is for health checks, which know less.
    fn default() -> BalanceSettings {
        BalanceSettings {
            max_ejected: 0.5,
            panic_below: 0.25,
            zone: None,
            zone_spill: 3.0,
            subset: 0,
            seed: fastrand::u64(..),
            breaker: BreakerSettings::default(),
            hung_after: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
        }
    }
}
