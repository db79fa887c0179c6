//! The endpoints of one target with what is known about each.
//!
//! No async and no clock: `now` is an argument. What a call under way needs to
//! report back lives in a [`Node`] of its own, so that it can outlast the
//! endpoint's place in the pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chassis_resilience::breaker::{BreakerSettings, CircuitBreaker, Permit};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{AllOpen, NoEndpoints};
use super::load::Load;
use super::metrics::BalanceMetrics;
use super::pick::{Candidates, pick};
use crate::{Endpoint, Target, Updates};

/// What is known about one endpoint.
pub(crate) struct Node {
    pub(crate) load: Mutex<Load>,
    pub(crate) in_flight: AtomicUsize,
    breaker: CircuitBreaker,
}

struct Member<S> {
    endpoint: Endpoint,
    service: S,
    node: Arc<Node>,
}

/// A place for a call: the service to call and where to report.
pub(crate) struct Picked<S> {
    pub(crate) service: S,
    pub(crate) node: Arc<Node>,
    pub(crate) permit: Permit,
}

/// Why there is no place.
pub(crate) enum Refused {
    /// The first set of endpoints is not known yet.
    Unknown,
    NoEndpoints(NoEndpoints),
    AllOpen(AllOpen),
}

pub(crate) struct Pool<S> {
    target: Target,
    updates: Updates,
    members: Vec<Member<S>>,
    make: Box<dyn Fn(&Endpoint) -> S + Send>,
    breaker: BreakerSettings,
    // Shared with the hooks of the breakers, which outlive a borrow of the pool.
    metrics: Arc<OnceLock<BalanceMetrics>>,
}

impl<S: Clone> Pool<S> {
    pub(crate) fn new(
        target: Target,
        mut updates: Updates,
        make: Box<dyn Fn(&Endpoint) -> S + Send>,
        breaker: BreakerSettings,
    ) -> Pool<S> {
        updates.mark_unseen();
        Pool { target, updates, members: Vec::new(), make, breaker, metrics: Arc::default() }
    }

    pub(crate) fn bind(&mut self, metrics: &chassis_core::Metrics) {
        let bound = BalanceMetrics::bind(metrics, &self.target);
        bound.endpoints.set(count(self.members.len()));
        // A second binding would split the numbers: the first stays.
        let _ = self.metrics.set(bound);
    }

    pub(crate) fn updates(&self) -> Updates {
        self.updates.clone()
    }

    /// Picks a place for one call.
    pub(crate) fn pick(&mut self, now: Instant) -> Result<Picked<S>, Refused> {
        if let Some(endpoints) = self.updates.take_change() {
            self.reconcile(&endpoints, now);
        }
        if self.members.is_empty() {
            return Err(self.no_endpoints());
        }
        let view = View { members: &self.members, now };
        if let Some(member) = pick(&view, |n| fastrand::usize(..n)).map(|i| &self.members[i])
            && let Ok(permit) = member.node.breaker.try_acquire(now)
        {
            return Ok(member.take(permit, now));
        }
        // Every circuit seemed closed to us. Asking each one for real also gives
        // the time until the first lets a trial call through.
        let mut retry_in = Duration::MAX;
        for member in &self.members {
            match member.node.breaker.try_acquire(now) {
                Ok(permit) => return Ok(member.take(permit, now)),
                Err(open) => retry_in = retry_in.min(open.retry_in),
            }
        }
        if let Some(metrics) = self.metrics.get() {
            metrics.all_open.inc();
        }
        Err(Refused::AllOpen(AllOpen { target: self.target.clone(), retry_in }))
    }

    fn no_endpoints(&self) -> Refused {
        if !self.updates.is_known() {
            return Refused::Unknown;
        }
        if let Some(metrics) = self.metrics.get() {
            metrics.no_endpoints.inc();
        }
        Refused::NoEndpoints(NoEndpoints { target: self.target.clone() })
    }

    /// Makes the members the given set. Who stays keeps all that is known.
    fn reconcile(&mut self, endpoints: &[Endpoint], now: Instant) {
        let mut old = std::mem::take(&mut self.members);
        for endpoint in endpoints {
            let known = old.iter().position(|member| member.endpoint.address == endpoint.address);
            self.members.push(match known {
                Some(index) => Member { endpoint: endpoint.clone(), ..old.swap_remove(index) },
                None => self.member(endpoint, now),
            });
        }
        if let Some(metrics) = self.metrics.get() {
            metrics.endpoints.set(count(self.members.len()));
        }
    }

    fn member(&self, endpoint: &Endpoint, now: Instant) -> Member<S> {
        let name = format!("{}@{}", self.target, endpoint.address);
        let breaker = CircuitBreaker::new(name, self.breaker);
        let metrics = Arc::clone(&self.metrics);
        breaker.on_transition(move |transition| {
            if let Some(metrics) = metrics.get() {
                metrics.transition(transition.to);
            }
        });
        Member {
            service: (self.make)(endpoint),
            node: Arc::new(Node {
                load: Mutex::new(Load::new(now)),
                in_flight: AtomicUsize::new(0),
                breaker,
            }),
            endpoint: endpoint.clone(),
        }
    }
}

impl<S: Clone> Member<S> {
    fn take(&self, permit: Permit, now: Instant) -> Picked<S> {
        self.node.load.lock().picked(now);
        self.node.in_flight.fetch_add(1, Ordering::Relaxed);
        Picked { service: self.service.clone(), node: Arc::clone(&self.node), permit }
    }
}

struct View<'a, S> {
    members: &'a [Member<S>],
    now: Instant,
}

impl<S> Candidates for View<'_, S> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn usable(&self, index: usize) -> bool {
        self.members[index].node.breaker.would_permit(self.now)
    }

    fn load(&self, index: usize) -> f64 {
        let member = &self.members[index];
        let calls = member.node.in_flight.load(Ordering::Relaxed) + 1;
        let cost = member.node.load.lock().cost(self.now);
        cost * calls as f64 / f64::from(member.endpoint.weight.max(1))
    }

    fn starved(&self, index: usize) -> bool {
        self.members[index].node.load.lock().is_starved(self.now)
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn endpoints(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
        ports.into_iter().map(|port| Endpoint::new(([127, 0, 0, 1], port).into())).collect()
    }

    /// A pool whose services are their own ports.
    fn pool(updates: Updates) -> Pool<u16> {
        Pool::new(
            Target::new("greeter", "http"),
            updates,
            Box::new(|endpoint| endpoint.address.port()),
            BreakerSettings {
                // The share of traffic is what is tested, not the breaker.
                consecutive_failures: 1_000_000,
                min_calls: 1_000_000,
                ..BreakerSettings::default()
            },
        )
    }

    fn picked(pool: &mut Pool<u16>, now: Instant) -> Picked<u16> {
        match pool.pick(now) {
            Ok(picked) => picked,
            Err(_) => panic!("nothing was picked"),
        }
    }

    /// Calls one after the other; gives the share of each port.
    fn shares(
        pool: &mut Pool<u16>,
        rounds: usize,
        answer: impl Fn(u16) -> (Duration, bool),
    ) -> [usize; 4] {
        let mut now = Instant::now();
        let mut shares = [0; 4];
        for _ in 0..rounds {
            let Picked { service, node, permit } = picked(pool, now);
            let (latency, ok) = answer(service);
            now += latency;
            shares[usize::from(service)] += 1;
            node.in_flight.fetch_sub(1, Ordering::Relaxed);
            if ok {
                node.load.lock().success(latency, now);
                permit.success(latency);
            } else {
                node.load.lock().failure(latency, now);
                permit.failure(latency);
            }
        }
        shares
    }

    #[test]
    fn who_fails_fast_does_not_attract_traffic() {
        let mut pool = pool(Updates::fixed(endpoints([0, 1])));
        let shares =
            shares(&mut pool, 2_000, |port| if port == 0 { (MS, false) } else { (50 * MS, true) });
        assert!(shares[0] < 100, "{shares:?}");
        assert!(shares[0] > 0, "it is tried now and then: {shares:?}");
    }

    #[test]
    fn who_is_slow_gets_less_and_who_is_cured_comes_back() {
        let mut pool = pool(Updates::fixed(endpoints([0, 1])));
        let slow =
            shares(&mut pool, 1_000, |port| (if port == 0 { 500 * MS } else { 10 * MS }, true));
        assert!(slow[0] < 100, "{slow:?}");
        let cured = shares(&mut pool, 20_000, |_| (10 * MS, true));
        assert!(cured[0] > 4_000, "{cured:?}");
    }

    #[test]
    fn calls_under_way_count_and_weights_do() {
        let mut pool = pool(Updates::fixed([
            endpoints([0]).remove(0).with_weight(3),
            endpoints([1]).remove(0),
        ]));
        let now = Instant::now();
        let mut shares = [0; 2];
        let mut held = Vec::new();
        for _ in 0..400 {
            let call = picked(&mut pool, now);
            shares[usize::from(call.service)] += 1;
            held.push(call);
        }
        assert!((290..=310).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn who_stays_in_the_set_keeps_its_history() {
        let (feed, updates) = Updates::channel();
        let mut pool = pool(updates);
        let now = Instant::now();
        assert!(matches!(pool.pick(now), Err(Refused::Unknown)));
        feed.publish(endpoints([1]));
        picked(&mut pool, now).node.load.lock().failure(MS, now);
        feed.publish(endpoints([1, 2]));
        for _ in 0..20 {
            assert_eq!(picked(&mut pool, now).service, 2);
        }
        feed.publish([]);
        assert!(matches!(pool.pick(now), Err(Refused::NoEndpoints(_))));
    }
}
