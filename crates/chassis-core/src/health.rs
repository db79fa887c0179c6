//! Whether this process lives, has started, and should get traffic.
//!
//! Liveness never asks a dependency: a restart does not heal a database. Readiness is this
//! process's own ability: a dependency that fails makes it [`Status::Degraded`], and only
//! probes marked critical take it out, so that one shared database does not take down a
//! fleet. Probes run in the background, with a timeout, and their last result is kept: who
//! asks for the health causes no I/O.

use std::{borrow::Cow, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
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

/// In the order in which they come; there is no way back.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
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

#[derive(Default)]
struct State {
    phase: Phase,
    checks: Vec<Check>,
}

struct Inner {
    /// Held while the status is made of it and sent, so that the last change also sends last.
    state: Mutex<State>,
    status: watch::Sender<Status>,
    changes: watch::Sender<()>,
    /// One round of checks at a time: the results of an older one must not come later.
    round: tokio::sync::Mutex<()>,
}

/// The health of one service. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

impl Default for Health {
    fn default() -> Self {
        Health(Arc::new(Inner {
            state: Mutex::default(),
            status: watch::Sender::new(Status::Starting),
            changes: watch::Sender::new(()),
            round: tokio::sync::Mutex::default(),
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
        self.0.state.lock().checks.push(check);
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
        self.0.state.lock().phase != Phase::Starting
    }

    /// Status and the last result of each probe.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let state = self.0.state.lock();
        let report = |check: &Check| CheckReport {
            name: check.name.clone(),
            critical: check.critical,
            ok: check.last.as_ref().map(Result::is_ok),
            error: check.last.as_ref().and_then(|last| last.as_ref().err().cloned()),
        };
        HealthReport { status: self.status(), checks: state.checks.iter().map(report).collect() }
    }

    /// Follows the status. The receiver sees the latest value, not every one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// Follows the status and the probes: the receiver is told when one of them has changed.
    /// [`report`](Health::report) says to what.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Says that all components have started: what [`App`](crate::App) does. Servers
    /// that run without an `App`, as in tests, say it themselves.
    pub fn set_started(&self) {
        self.set_phase(Phase::Running);
    }

    /// Says that the process is shutting down. This is final.
    pub fn set_draining(&self) {
        self.set_phase(Phase::Draining);
    }

    fn set_phase(&self, phase: Phase) {
        self.change(|state| state.phase = state.phase.max(phase));
    }

    /// Changes the state, and the status with it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.lock();
        let before = state.results();
        change(&mut state);
        let status = state.status();
        let changed =
            self.0.status.send_if_modified(|old| std::mem::replace(old, status) != status);
        if changed || state.results() != before {
            self.0.changes.send_replace(());
        }
        drop(state);
        if changed {
            tracing::info!(?status, "health changed");
        }
    }

    /// Runs every probe once, all at the same time, and after a round that is under way. One
    /// that panics has failed. Dropping it leaves the old results.
    pub async fn check_now(&self) {
        let _round = self.0.round.lock().await;
        let probes: Vec<_> =
            self.0.state.lock().checks.iter().map(|check| check.probe.clone()).collect();
        let results = join_all(probes.iter().map(|probe| async {
            let check = AssertUnwindSafe(async { probe.check().await }).catch_unwind();
            match tokio::time::timeout(TIMEOUT, check).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Error::internal("the probe panicked")),
                Err(_) => Err(Error::unavailable("PROBE_TIMEOUT", "no answer in two seconds")),
            }
        }))
        .await;
        self.change(|state| {
            for (check, result) in state.checks.iter_mut().zip(results) {
                check.take(result);
            }
        });
    }

    /// Runs the probes every five seconds, for ever. Dropping it stops them.
    pub(crate) async fn run_probes(&self) {
        loop {
            self.check_now().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Check {
    fn take(&mut self, result: Result<()>) {
        let failed_before = matches!(self.last, Some(Err(_)));
        self.last = Some(result.map_err(|error| error.chain()));
        match &self.last {
            Some(Err(error)) if !failed_before => {
                tracing::warn!(probe = %self.name, critical = self.critical, error, "probe fails");
            }
            Some(Ok(())) if failed_before => {
                tracing::info!(probe = %self.name, "probe works again");
            }
            _ => {}
        }
    }
}

impl State {
    fn results(&self) -> Vec<Option<bool>> {
        self.checks.iter().map(|check| check.last.as_ref().map(Result::is_ok)).collect()
    }

    fn status(&self) -> Status {
        let mut failing = self.checks.iter().filter(|check| matches!(check.last, Some(Err(_))));
        match self.phase {
            Phase::Starting => Status::Starting,
            Phase::Draining => Status::Draining,
            Phase::Running => match failing.next() {
                None => Status::Up,
                Some(first) if first.critical || failing.any(|check| check.critical) => {
                    Status::Down
                }
                Some(_) => Status::Degraded,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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
    async fn a_probe_that_changes_is_told_though_the_status_stays() {
        let health = Health::default();
        let (first, probe) = switchable();
        health.add("first", false, probe);
        let (second, probe) = switchable();
        health.add("second", false, probe);
        health.set_started();
        first.store(false, Ordering::Relaxed);
        health.check_now().await;
        let (mut changes, status) = (health.changes(), health.watch());
        health.check_now().await;
        assert!(!changes.has_changed().unwrap());
        second.store(false, Ordering::Relaxed);
        health.check_now().await;
        assert!(changes.has_changed().unwrap() && !status.has_changed().unwrap());
        changes.mark_unchanged();
        health.set_draining();
        assert!(changes.has_changed().unwrap());
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

    #[test]
    fn draining_is_final_whatever_else_changes_at_the_same_time() {
        for _ in 0..200 {
            let health = Health::default();
            std::thread::scope(|scope| {
                scope.spawn(|| (0..20).for_each(|_| health.set_started()));
                scope.spawn(|| health.set_draining());
                scope.spawn(|| (0..20).for_each(|_| health.change(|_| {})));
            });
            assert_eq!(health.status(), Status::Draining);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_panics_has_failed_and_the_others_go_on() {
        let health = Health::default();
        let (ok, probe) = switchable();
        health.add("broken", false, || async { panic!("boom") });
        health.add("sound", false, probe);
        health.set_started();
        health.check_now().await;
        ok.store(false, Ordering::Relaxed);
        health.check_now().await;
        let report = health.report();
        assert_eq!(report.checks[0].error.as_deref(), Some("internal error: the probe panicked"));
        assert_eq!(report.checks[1].ok, Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_round_does_not_overwrite_a_newer_one() {
        let health = Health::default();
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        // The first check hangs until its timeout, the second one passes at once.
        health.add("slow", false, move || {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        health.set_started();
        tokio::join!(health.check_now(), health.check_now());
        assert_eq!(health.status(), Status::Up);
    }
}
