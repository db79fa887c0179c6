//! What an operator sees of discovery: age of the sets, state of registrations.
//!
//! A set that is kept because its source is away serves calls as long as it is
//! right, and nobody notices. So its age is a metric, it degrades the health,
//! and `GET /ops/discovery` shows who is thought to be where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Env, Error, Metrics, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Lease, Target, Updates};

/// How many targets are shown; the rest work all the same.
const MAX_TARGETS: usize = 1_000;

/// What was looked for and what was registered by one discovery.
#[derive(Default)]
pub(crate) struct Observed {
    targets: Mutex<BTreeMap<Target, Updates>>,
    leases: Mutex<Vec<Registered>>,
}

/// What one component registered: a process may have several, and each takes back its own.
struct Registered {
    /// Which one, known by its address.
    by: Arc<()>,
    target: Target,
    lease: Lease,
}

impl Observed {
    pub(crate) fn looks_for(&self, target: &Target, updates: &Updates) {
        let mut targets = self.targets.lock();
        if targets.len() < MAX_TARGETS {
            targets.entry(target.clone()).or_insert_with(|| updates.clone());
        }
    }

    pub(crate) fn registered(&self, by: &Arc<()>, target: Target, lease: Lease) {
        self.leases.lock().push(Registered { by: Arc::clone(by), target, lease });
    }

    /// Begins to take back what one component registered.
    pub(crate) fn let_go(&self, by: &Arc<()>) {
        drop(self.take(by));
    }

    /// Takes back what one component registered; ends when the registry has answered for all.
    pub(crate) async fn deregister(&self, by: &Arc<()>) {
        // All begin at once.
        let going: Vec<_> = self.take(by).into_iter().map(|it| it.lease.release()).collect();
        for gone in going {
            gone.await;
        }
    }

    fn take(&self, by: &Arc<()>) -> Vec<Registered> {
        self.leases.lock().extract_if(.., |it| Arc::ptr_eq(&it.by, by)).collect()
    }

    /// Shows it in the process's health, metrics and operations.
    pub(crate) fn show(self: &Arc<Self>, env: &Env) {
        let (observed, metrics) = (Arc::clone(self), env.metrics().clone());
        self.measure(&metrics, Instant::now());
        env.health().add("discovery", false, move || {
            let now = Instant::now();
            observed.measure(&metrics, now);
            std::future::ready(observed.check(now))
        });
        let observed = Arc::clone(self);
        env.operations().read(
            "discovery",
            "Shows the endpoints of each service that is called, and our registrations.",
            move |_| std::future::ready(Ok(observed.report(Instant::now()))),
        );
    }

    /// Well, unless a source is away or a registration is lost.
    fn check(&self, now: Instant) -> Result<()> {
        let mut problems = Vec::new();
        for (target, updates) in &*self.targets.lock() {
            if let Some(age) = updates.stale_for(now) {
                problems.push(format!("{target} is {} s old", age.as_secs()));
            }
        }
        for Registered { target, lease, .. } in &*self.leases.lock() {
            if let Some(time) = lease.lost_for(now) {
                problems.push(format!("{target} is not registered for {} s", time.as_secs()));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::unavailable("DISCOVERY_STALE", problems.join(", ")))
    }

    fn measure(&self, metrics: &Metrics, now: Instant) {
        let seconds = |time: Option<Duration>| {
            i64::try_from(time.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
        };
        for (target, updates) in &*self.targets.lock() {
            let labels = labels(target);
            metrics
                .gauge("discovery_stale_seconds", "Age of a set whose source is away.", &labels)
                .set(seconds(updates.stale_for(now)));
            metrics
                .gauge("discovery_endpoints", "Endpoints that are known.", &labels)
                .set(i64::try_from(updates.current().len()).unwrap_or(i64::MAX));
        }
        for Registered { target, lease, .. } in &*self.leases.lock() {
            metrics
                .gauge(
                    "discovery_unregistered_seconds",
                    "For how long the registry has not held our registration.",
                    &labels(target),
                )
                .set(seconds(lease.lost_for(now)));
        }
    }

    fn report(&self, now: Instant) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        let targets = self.targets.lock();
        let targets = targets.iter().map(|(target, updates)| {
            json!({
                "target": target.to_string(),
                "known": updates.is_known(),
                "stale_seconds": seconds(updates.stale_for(now)),
                "endpoints": &*updates.current(),
            })
        });
        let leases = self.leases.lock();
        let leases = leases.iter().map(|Registered { target, lease, .. }| {
            json!({
                "target": target.to_string(),
                "lost_seconds": seconds(lease.lost_for(now)),
            })
        });
        json!({
            "targets": targets.collect::<Vec<_>>(),
            "registrations": leases.collect::<Vec<_>>(),
        })
    }
}

fn labels(target: &Target) -> [(&'static str, &str); 2] {
    [("service", &target.service), ("protocol", &target.protocol)]
}
