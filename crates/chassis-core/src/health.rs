//! Whether this process lives, has started, and should get traffic.
//!
//! Liveness never asks a dependency: a restart does not heal a database. Readiness is this
//! process's own ability: a dependency that fails makes it [`Status::Degraded`], and only
//! probes marked critical take it out, so that one shared database does not take down a
//! fleet. Probes run in the background, with a timeout, and their last result is kept: who
//! asks for the health causes no I/O.

use std::{
    borrow::Cow,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::{BoxFuture, Error, Result};

/// How often probes run.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long one probe may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Components are still starting: not ready.
    Starting,
    /// All is well: ready.
    Up,
    /// A dependency fails, and the process does what it can without it: ready.
    Degraded,
    /// A critical dependency fails: not ready.
    Down,
    /// Shutting down: not ready.
    Draining,
}

/// Asks a dependency whether it works.
pub trait Probe: Send + Sync + 'static {
    /// One check; dropped after two seconds, which counts as a failure.
    fn check(&self) -> BoxFuture<'_, Result<()>>;
}

impl<F, Fut> Probe for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Starting,
    Running,
    Draining,
}

struct Check {
    name: Cow<'static, str>,
    critical: bool,
    probe: Arc<dyn Probe>,
    /// None before the first check.
    last: Option<Result<(), String>>,
}

struct Inner {
    phase: AtomicU8,
    checks: Mutex<Vec<Check>>,
    status: watch::Sender<Status>,
}

/// The health of one service. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

impl Default for Health {
    fn default() -> Self {
        Health(Arc::new(Inner {
            phase: AtomicU8::new(Phase::Starting as u8),
            checks: Mutex::default(),
            status: watch::Sender::new(Status::Starting),
        }))
    }
}

/// The health as a whole, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct HealthReport {
    /// The sum of it.
    pub status: Status,
    /// Each dependency.
    pub checks: Vec<CheckReport>,
}

/// The last result of one probe.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The probe's name.
    pub name: Cow<'static, str>,
    /// Whether its failure takes the process out of traffic.
    pub critical: bool,
    /// Whether the last check passed; none before the first.
    pub ok: Option<bool>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    /// Adds a probe. A failing one degrades the service; a critical one takes it out.
    pub fn add(&self, name: impl Into<Cow<'static, str>>, critical: bool, probe: impl Probe) {
        let check = Check { name: name.into(), critical, probe: Arc::new(probe), last: None };
        self.0.checks.lock().push(check);
    }

    /// The sum of phase and probes.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.0.status.borrow()
    }

    /// Whether the process works at all. It does as long as it can answer.
    #[must_use]
    pub fn is_live(&self) -> bool {
        true
    }

    /// Whether it should get traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.status(), Status::Up | Status::Degraded)
    }

    /// Whether all components have started; true also while draining.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) != Phase::Starting as u8
    }

    /// Status and the last result of each probe.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let checks = self.0.checks.lock();
        let report = |check: &Check| CheckReport {
            name: check.name.clone(),
            critical: check.critical,
            ok: check.last.as_ref().map(Result::is_ok),
            error: check.last.as_ref().and_then(|last| last.as_ref().err().cloned()),
        };
        HealthReport { status: self.status(), checks: checks.iter().map(report).collect() }
    }

    /// Follows the status. The receiver sees the latest value, not every one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// Says that all components have started: what [`App`](crate::App) does. Servers
    /// that run without an `App`, as in tests, say it themselves.
    pub fn set_started(&self) {
        self.set_phase(Phase::Running);
    }

    /// Says that the process is shutting down.
    pub fn set_draining(&self) {
        self.set_phase(Phase::Draining);
    }

    fn set_phase(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::Release);
        self.recompute();
    }

    fn recompute(&self) {
        let phase = self.0.phase.load(Ordering::Acquire);
        let failing = |critical_only: bool| {
            let checks = self.0.checks.lock();
            checks.iter().any(|check| {
                (check.critical || !critical_only) && matches!(check.last, Some(Err(_)))
            })
        };
        let status = if phase == Phase::Starting as u8 {
            Status::Starting
        } else if phase == Phase::Draining as u8 {
            Status::Draining
        } else if failing(true) {
            Status::Down
        } else if failing(false) {
            Status::Degraded
        } else {
            Status::Up
        };
        let changed = self.0.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
        if changed {
            tracing::info!(?status, "health changed");
        }
    }

    /// Runs every probe once, all at the same time. Dropping it leaves the old results.
    pub async fn check_now(&self) {
        let probes: Vec<_> = self.0.checks.lock().iter().map(|check| check.probe.clone()).collect();
        let results = join_all(probes.iter().map(|probe| async {
            match tokio::time::timeout(TIMEOUT, probe.check()).await {
                Ok(result) => result,
                Err(_) => Err(Error::unavailable("PROBE_TIMEOUT", "no answer in two seconds")),
            }
        }))
        .await;
        for (check, result) in self.0.checks.lock().iter_mut().zip(results) {
            let failed_before = matches!(check.last, Some(Err(_)));
            check.last = Some(result.map_err(|error| error.chain()));
            match &check.last {
                Some(Err(error)) if !failed_before => {
                    tracing::warn!(probe = %check.name, critical = check.critical, error, "probe fails");
                }
                Some(Ok(())) if failed_before => {
                    tracing::info!(probe = %check.name, "probe works again");
                }
                _ => {}
            }
        }
        self.recompute();
    }

    /// Runs the probes every five seconds, for ever. Dropping it stops them.
    pub(crate) async fn run_probes(&self) {
        loop {
            self.check_now().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn switchable() -> (Arc<AtomicBool>, impl Probe) {
        let ok = Arc::new(AtomicBool::new(true));
        let seen = ok.clone();
        let probe = move || {
            let ok = seen.load(Ordering::Relaxed);
            async move { if ok { Ok(()) } else { Err(Error::unavailable("X", "down")) } }
        };
        (ok, probe)
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_degrades_and_only_a_critical_one_takes_out() {
        let health = Health::default();
        let (soft, soft_probe) = switchable();
        let (hard, hard_probe) = switchable();
        health.add("soft", false, soft_probe);
        health.add("hard", true, hard_probe);
        assert!(!health.is_ready() && !health.is_started());
        health.set_started();
        health.check_now().await;
        assert_eq!(health.status(), Status::Up);
        soft.store(false, Ordering::Relaxed);
        health.check_now().await;
        assert_eq!(health.status(), Status::Degraded);
        assert!(health.is_ready());
        hard.store(false, Ordering::Relaxed);
        health.check_now().await;
        assert_eq!(health.status(), Status::Down);
        assert!(!health.is_ready() && health.is_live());
        health.set_draining();
        assert_eq!(health.status(), Status::Draining);
        assert!(health.is_started());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_probe_fails_after_its_timeout() {
        let health = Health::default();
        health.add("stuck", false, std::future::pending::<Result<()>>);
        health.set_started();
        health.check_now().await;
        let report = health.report();
        assert_eq!(report.checks[0].ok, Some(false));
        assert_eq!(report.status, Status::Degraded);
    }
}
