//! The decision, once for each call.

use std::{net::IpAddr, sync::Arc, time::Duration};

use chassis_core::{Code, Counter, Env, Error, Gauge, Priority, Result};
use chassis_resilience::{
    Class, KeyedRateLimit, RateLimited, Settle, Shedder, Verdict,
    adaptive::Place,
    rate_limit::shared::{SharedRateLimit, TokenStore},
    shed,
};
use tokio::time::Instant;

use crate::{
    AdmissionConfig, RoutePriority,
    networks::{Networks, caller},
};

/// The reason of the error of a call that there was no room for. Nothing was done for it.
pub const SERVER_OVERLOADED: &str = "SERVER_OVERLOADED";
/// The shortest pause before a call that was shed is worth another try: one step of the limit.
/// Up to as much is added, so that those that were refused together do not come back together.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the gauges are set.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Lets calls in, or says why not. Clones share it.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    config: AdmissionConfig,
    trusted: Networks,
    shedder: Option<Shedder>,
    rate: Option<Rate>,
    overloaded: Code,
    shed: [Counter; 3],
    limited: Counter,
    limit: Gauge,
    in_flight: Gauge,
}

enum Rate {
    Alone(KeyedRateLimit<IpAddr>),
    Shared { limit: SharedRateLimit, prefix: String },
}

impl Door {
    /// The door of a server, `http` or `grpc`, whose calls are refused with `overloaded` where
    /// there is no room. With a store all instances that use it keep one rate limit for each
    /// caller; without, each keeps its own.
    ///
    /// # Errors
    /// As [`AdmissionConfig::validate`].
    pub fn new(
        config: &AdmissionConfig,
        env: &Env,
        server: &'static str,
        overloaded: Code,
        store: Option<Box<dyn TokenStore>>,
    ) -> Result<Door> {
        let path = format!("{server}.admission");
        config.validate(&path)?;
        let metrics = env.metrics();
        let shed = [Priority::Sheddable, Priority::Normal, Priority::Critical].map(|priority| {
            metrics.counter(
                "server_shed_calls",
                "Calls that were refused because there was no room.",
                &[("server", server), ("priority", priority.as_str())],
            )
        });
        let numbers = &config.rate_limit;
        let rate = numbers.enabled.then(|| match store {
            None => Rate::Alone(KeyedRateLimit::new(numbers.limit(), numbers.max_callers)),
            Some(store) => Rate::Shared {
                limit: SharedRateLimit::new(store, numbers.limit(), numbers.shared()),
                prefix: format!("{}/{server}/", env.info().name),
            },
        });
        Ok(Door(Arc::new(Inner {
            trusted: config.networks(&path)?,
            shedder: config.shed.enabled.then(|| Shedder::new(config.shed.settings())),
            rate,
            overloaded,
            shed,
            limited: metrics.counter(
                "server_rate_limited_calls",
                "Calls that were refused because their caller has had its share.",
                &[("server", server)],
            ),
            limit: metrics.gauge(
                "server_concurrency_limit",
                "Calls that there is room for; 0 if that is not measured.",
                &[("server", server)],
            ),
            in_flight: metrics.gauge(
                "server_concurrency_in_flight",
                "Calls that have a place.",
                &[("server", server)],
            ),
            config: config.clone(),
        })))
    }

    /// How important a route is; for a name that the settings do not know, the usual.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<RoutePriority> {
        let known = &self.0.config.priorities;
        // The usual case costs no look-up.
        if known.is_empty() { None } else { known.get(name).copied() }
    }

    /// How important a call is. `asked` is what its caller says: anybody may say less than the
    /// route does, and who is trusted may say more. `None` for a call that is exempt.
    #[must_use]
    pub fn priority(
        &self,
        route: RoutePriority,
        asked: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Option<Priority> {
        let base = route.priority()?;
        match asked.and_then(Priority::parse) {
            Some(asked) if asked < base || self.trusts(peer) => Some(asked),
            _ => Some(base),
        }
    }

    /// Whether a call is sampled whatever its trace says: what is exempt never is, for a collector
    /// full of probes is of no use, and what a trusted caller wants to look at always is. `asked`
    /// is what [`FORCE_TRACE`](chassis_core::propagation::FORCE_TRACE) says; `None` leaves it to
    /// the trace.
    #[must_use]
    pub fn sampled(
        &self,
        priority: Option<Priority>,
        asked: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Option<bool> {
        if priority.is_none() {
            return Some(false);
        }
        (matches!(asked, Some("1" | "true")) && self.trusts(peer)).then_some(true)
    }

    /// Asks to let a call in; `None` is the priority of one that is exempt.
    ///
    /// # Errors
    /// [`SERVER_OVERLOADED`] where there is no room, `RATE_LIMITED` where the caller has had its share.
    pub fn enter(&self, priority: Option<Priority>, peer: Option<IpAddr>) -> Result<Pass> {
        let Some(priority) = priority else { return Ok(Pass { place: None, unpaid: None }) };
        // First, so that who has had its share takes no place from others.
        let unpaid = self.charge(peer)?;
        let Some(shedder) = &self.0.shedder else { return Ok(Pass { place: None, unpaid }) };
        let shed_as = match priority {
            Priority::Sheddable => shed::Priority::Sheddable,
            Priority::Normal => shed::Priority::Normal,
            Priority::Critical => shed::Priority::Critical,
        };
        let place = shedder.try_enter(shed_as, Instant::now()).map_err(|shed| {
            if let Some(counter) = self.0.shed.get(priority as usize) {
                counter.inc();
            }
            let message = "there is more to do than can be done in time";
            Error::new(self.0.overloaded, SERVER_OVERLOADED, message)
                .with_source(shed)
                .with_retry_after(PAUSE + PAUSE.mul_f64(fastrand::f64()))
        })?;
        Ok(Pass { place, unpaid })
    }

    /// Watches how long tasks wait for a processor, and keeps the gauges up to date. Runs until
    /// it is dropped; whoever owns the server polls it.
    pub async fn watch(&self) {
        let Some(shedder) = &self.0.shedder else { return std::future::pending().await };
        let show = async {
            loop {
                let now = shedder.stats();
                self.0.limit.set(now.adaptive.limit.into());
                self.0.in_flight.set(now.adaptive.in_flight.into());
                tokio::time::sleep(SHOW_EVERY).await;
            }
        };
        tokio::join!(show, shedder.watch_queue());
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.0.trusted.contain(peer))
    }

    fn charge(&self, peer: Option<IpAddr>) -> Result<Option<Unpaid>> {
        let (Some(rate), Some(peer)) = (&self.0.rate, peer) else { return Ok(None) };
        if self.trusts(Some(peer)) {
            return Ok(None);
        }
        match rate {
            Rate::Alone(limit) => match limit.check(caller(peer)) {
                Ok(()) => Ok(None),
                Err(limited) => Err(self.0.limited(limited)),
            },
            Rate::Shared { prefix, .. } => Ok(Some(Unpaid {
                door: Arc::clone(&self.0),
                key: format!("{prefix}{}", caller(peer)),
            })),
        }
    }
}

impl Inner {
    fn limited(&self, limited: RateLimited) -> Error {
        self.limited.inc();
        let error = Error::new(
            Code::ResourceExhausted,
            "RATE_LIMITED",
            "too many calls came from this caller",
        );
        error.with_source(limited).with_retry_after(limited.retry_in)
    }
}

/// A call that was let in. Say how it ended; dropping it means that nobody waited for it.
#[must_use = "dropping the pass frees the place"]
pub struct Pass {
    place: Option<Place>,
    unpaid: Option<Unpaid>,
}

/// A call whose tokens the store may have to be asked for.
struct Unpaid {
    door: Arc<Inner>,
    key: String,
}

impl Pass {
    /// Whether [`pay`](Pass::pay) has anything to do.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.unpaid.is_some()
    }

    /// Pays for the call where the rate limit is shared; to be awaited before the handler runs.
    /// At once where it is not shared or tokens are in hand. Dropping the future may lose a
    /// token; it never makes one.
    ///
    /// # Errors
    /// `RATE_LIMITED`; then the pass is over.
    pub async fn pay(&mut self) -> Result<()> {
        let Some(unpaid) = self.unpaid.take() else { return Ok(()) };
        let Some(Rate::Shared { limit, .. }) = &unpaid.door.rate else { return Ok(()) };
        let paid = limit.check(&unpaid.key).await;
        paid.map_err(|limited| {
            if let Some(place) = self.place.take() {
                place.settle(verdict(Class::Ignore));
            }
            unpaid.door.limited(limited)
        })
    }

    /// The call ended like this, now.
    pub fn end(self, class: Class) {
        self.place.settle(verdict(class));
    }
}

fn verdict(class: Class) -> Verdict {
    // The place knows since when it is held.
    Verdict { class, latency: Duration::ZERO, retry_after: None }
}

#[cfg(test)]
mod tests {
    use chassis_resilience::rate_limit::shared::MemoryTokenStore;

    use super::*;
    use crate::{RateLimitConfig, ShedConfig};

    const US: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const THEM: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)));

    fn config() -> AdmissionConfig {
        AdmissionConfig { trusted_peers: vec!["10.0.0.0/8".to_owned()], ..Default::default() }
    }

    fn door(config: &AdmissionConfig) -> Door {
        Door::new(config, &Env::test("t"), "http", Code::Unavailable, None).unwrap()
    }

    #[test]
    fn anybody_may_say_less_and_who_is_trusted_may_say_more() {
        use Priority::{Critical, Normal, Sheddable};
        let door = door(&config());
        let route = RoutePriority::Normal;
        for (asked, peer, expected) in [
            (None, US, Normal),
            (Some("sheddable"), THEM, Sheddable),
            (Some("critical"), THEM, Normal),
            (Some("critical"), None, Normal),
            (Some("critical"), US, Critical),
            (Some("exempt"), US, Normal),
            (Some("CRITICAL"), US, Normal),
        ] {
            assert_eq!(door.priority(route, asked, peer), Some(expected), "{asked:?} {peer:?}");
        }
        let critical = RoutePriority::Critical;
        assert_eq!(door.priority(critical, Some("normal"), THEM), Some(Normal));
        assert_eq!(door.priority(critical, None, THEM), Some(Critical));
        assert_eq!(door.priority(RoutePriority::Exempt, Some("sheddable"), THEM), None);
    }

    #[test]
    fn probes_are_never_sampled_and_a_trace_is_forced_by_who_is_trusted() {
        let door = door(&config());
        let normal = Some(Priority::Normal);
        for (priority, asked, peer, expected) in [
            (normal, None, US, None),
            (normal, Some("1"), US, Some(true)),
            (normal, Some("true"), US, Some(true)),
            (normal, Some("0"), US, None),
            (normal, Some("1"), THEM, None),
            (normal, Some("1"), None, None),
            (None, None, THEM, Some(false)),
            (None, Some("1"), US, Some(false)),
        ] {
            assert_eq!(door.sampled(priority, asked, peer), expected, "{asked:?} {peer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_no_room_for_is_refused_and_the_important_goes_last() {
        let shed =
            ShedConfig { enabled: true, min_limit: 10, initial_limit: 10, ..ShedConfig::default() };
        let door = door(&AdmissionConfig { shed, ..config() });
        let fill = |priority| {
            let mut passes = Vec::new();
            loop {
                match door.enter(Some(priority), THEM) {
                    Ok(pass) => passes.push(pass),
                    Err(error) => return (passes, error),
                }
            }
        };
        let (sheddable, error) = fill(Priority::Sheddable);
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, SERVER_OVERLOADED));
        assert!((PAUSE..=2 * PAUSE).contains(&error.retry_after().unwrap()));
        let (normal, _) = fill(Priority::Normal);
        let (critical, _) = fill(Priority::Critical);
        assert_eq!([sheddable.len(), normal.len(), critical.len()], [8, 1, 1]);
        assert!(door.enter(None, THEM).is_ok(), "an exempt call needs no room");
        drop(sheddable);
        assert!(door.enter(Some(Priority::Normal), THEM).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_its_share_and_who_is_trusted_has_no_limit() {
        let rate_limit = RateLimitConfig {
            enabled: true,
            per_second: 1,
            burst: 2,
            lease: 1,
            ..RateLimitConfig::default()
        };
        let config = AdmissionConfig { rate_limit, ..config() };
        let env = Env::test("t");
        let shared = || {
            let store: Box<dyn TokenStore> = Box::new(MemoryTokenStore::new(100));
            Door::new(&config, &env, "http", Code::Unavailable, Some(store)).unwrap()
        };
        for door in [door(&config), shared()] {
            let call = async |peer| {
                let mut pass = door.enter(Some(Priority::Critical), peer)?;
                pass.pay().await
            };
            for _ in 0..2 {
                call(THEM).await.unwrap();
            }
            let error = call(THEM).await.unwrap_err();
            assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "RATE_LIMITED"));
            assert!(error.retry_after().unwrap() <= Duration::from_secs(1));
            for _ in 0..10 {
                call(US).await.unwrap();
                call(None).await.unwrap();
            }
        }
    }
}
