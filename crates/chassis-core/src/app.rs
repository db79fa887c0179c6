//! A process as a list of components, started in order and stopped in reverse.
//!
//! An HTTP server, a consumer, a relay and a saga runner are all the same to [`App`]: each
//! says when it serves, and each is told when to stop and by when. What stands earlier in
//! the list may be used by what stands later, both on the way up and on the way down.
//!
//! The life of an app:
//!
//! 1. Components start, one after the other; each must become ready within a minute.
//! 2. Probes run once, and readiness goes up. Then start those that announce the service
//!    elsewhere: nobody is sent here before.
//! 3. The app serves until a shutdown is requested or a component fails.
//! 4. Components that announce the service elsewhere stop, readiness goes down, and the
//!    drain delay passes, so that callers learn of it.
//! 5. The rest stop in reverse order, each until the drain deadline, then they are aborted.
//! 6. What was given to [`App::on_close`] runs, last first.

use std::{
    borrow::Cow, collections::VecDeque, fmt, future::Future, panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    BoxFuture, Deadline, Env, Error, Health, Metrics, Probe, Result, ServiceInfo, Shutdown,
    ShutdownTrigger, config::ShutdownConfig, error::panic_text,
};

/// How long a component may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long past the drain deadline a component may take to end before it is aborted.
const ABORT_GRACE: Duration = Duration::from_millis(500);
/// How long one closer may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A part of a process that starts, serves and stops.
pub trait Component: Send + 'static {
    /// What it is called in the plan and in the log.
    fn name(&self) -> Cow<'static, str>;

    /// One line for the plan, such as the address that it will listen on.
    fn describe(&self) -> String {
        String::new()
    }

    /// Checks its settings, before any component starts and for `--check`.
    ///
    /// # Errors
    /// What cannot work, naming the setting and what is allowed.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it tells others of this service. Such components start once the service is
    /// ready, and stop before the drain delay.
    fn announces(&self) -> bool {
        false
    }

    /// Starts, calls [`Ready::ready`] once it serves, and goes on until `shutdown`.
    ///
    /// Returning an error, or panicking, shuts the app down; returning `Ok` early only ends
    /// this component, and before it was ready counts as ready. The future is dropped if it
    /// does not end by the drain deadline.
    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>>;
}

/// How a component says that it serves.
#[derive(Debug)]
pub struct Ready(oneshot::Sender<()>);

impl Ready {
    /// A pair for running a component without an [`App`]: the receiver resolves when the
    /// component is ready, and fails when it ended before.
    pub fn channel() -> (Ready, impl Future<Output = Result<()>> + Send) {
        let (sender, receiver) = oneshot::channel();
        let wait = receiver.map(|result| {
            result.map_err(|_| Error::internal("the component ended before it was ready"))
        });
        (Ready(sender), wait)
    }

    /// Says it. The next component starts then.
    pub fn ready(self) {
        // Nobody waits any more if the app gave up in the meantime.
        let _ = self.0.send(());
    }
}

/// What an app consists of, for people, programs and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The service's name.
    pub service: String,
    /// The version of its code.
    pub version: String,
    /// Probes by name; critical ones are marked so.
    pub probes: Vec<PlanEntry>,
    /// Components in the order of their start.
    pub components: Vec<PlanEntry>,
}

/// A line of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanEntry {
    /// What it is called.
    pub name: String,
    /// What it says of itself.
    pub detail: String,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.service, self.version)?;
        for (title, entries) in [("probe", &self.probes), ("component", &self.components)] {
            for PlanEntry { name, detail } in entries {
                writeln!(f, "  {title:<9}  {name:<20}  {detail}")?;
            }
        }
        Ok(())
    }
}

type Closer = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A process in the making. See the module for its life.
pub struct App {
    env: Env,
    drain_delay: Duration,
    drain_timeout: Duration,
    components: Vec<Box<dyn Component>>,
    probes: Vec<PlanEntry>,
    closers: Mutex<Vec<(Cow<'static, str>, Closer)>>,
}

impl App {
    /// An app without components.
    #[must_use]
    pub fn new(env: Env) -> App {
        App {
            env,
            drain_delay: Duration::ZERO,
            drain_timeout: ShutdownConfig::default().timeout,
            components: Vec::new(),
            probes: Vec::new(),
            closers: Mutex::default(),
        }
    }

    /// The environment that the components will run in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The metrics of the service.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.env.metrics()
    }

    /// The health of the service.
    #[must_use]
    pub fn health(&self) -> &Health {
        self.env.health()
    }

    /// Who the service is.
    #[must_use]
    pub fn info(&self) -> &ServiceInfo {
        self.env.info()
    }

    /// Adds a component after those that are there.
    #[must_use]
    pub fn with(mut self, component: impl Component) -> App {
        self.components.push(Box::new(component));
        self
    }

    /// Adds a probe whose failure degrades the service.
    #[must_use]
    pub fn probe(self, name: impl Into<Cow<'static, str>>, probe: impl Probe) -> App {
        self.add_probe(name.into(), false, probe)
    }

    /// Adds a probe whose failure takes the service out of traffic.
    #[must_use]
    pub fn critical_probe(self, name: impl Into<Cow<'static, str>>, probe: impl Probe) -> App {
        self.add_probe(name.into(), true, probe)
    }

    fn add_probe(mut self, name: Cow<'static, str>, critical: bool, probe: impl Probe) -> App {
        let detail = if critical { "critical" } else { "" };
        self.probes.push(PlanEntry { name: name.to_string(), detail: detail.to_owned() });
        self.env.health().add(name, critical, probe);
        self
    }

    /// Runs `close` after all components have stopped, the last given first: for pools and
    /// the like. It has five seconds.
    ///
    /// It takes `&self`, so that what opens a pool can say at once how it is closed.
    pub fn on_close<F, Fut>(&self, name: impl Into<Cow<'static, str>>, close: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.closers.lock().push((name.into(), Box::new(move || Box::pin(close()))));
    }

    /// Checks the settings of all components without starting any.
    ///
    /// # Errors
    /// The first component whose settings cannot work.
    pub fn validate(&self) -> Result<()> {
        self.components.iter().try_for_each(|component| component.validate())
    }

    /// Sets how it stops: the delay between "not ready" and the stop of the servers, and the
    /// time to drain after a component failed. (A requested shutdown brings its own time.)
    #[must_use]
    pub fn with_shutdown(mut self, config: &ShutdownConfig) -> App {
        self.drain_delay = config.delay;
        self.drain_timeout = config.timeout;
        self
    }

    /// What the app consists of.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let entry = |component: &dyn Component| PlanEntry {
            name: component.name().into_owned(),
            detail: component.describe(),
        };
        Plan {
            service: self.info().name.to_string(),
            version: self.info().version.to_string(),
            probes: self.probes.clone(),
            components: self.components.iter().map(|component| entry(&**component)).collect(),
        }
    }

    /// Runs the app to its end.
    ///
    /// Dropping this future aborts every component at once, without a drain.
    ///
    /// # Errors
    /// The first failure: of a component that did not start or that failed while serving.
    /// What had started is stopped in order all the same.
    pub async fn run(self, shutdown: Shutdown) -> Result<()> {
        let env = self.env.clone();
        env.scope(self.run_scoped(shutdown)).await
    }

    async fn run_scoped(self, shutdown: Shutdown) -> Result<()> {
        let env = self.env.clone();
        env.set_plan(self.plan());
        let mut outcome = self.validate();
        let probes = AbortOnDrop(env.spawn({
            let env = env.clone();
            async move {
                env.health().run_probes().await;
            }
        }));

        let (announcers, components): (Vec<_>, Vec<_>) =
            self.components.into_iter().partition(|component| component.announces());
        let mut running: Vec<Running> = Vec::new();
        if outcome.is_ok() {
            outcome = start_all(components, &mut running, &env, &shutdown).await;
        }
        let mut drain_delay = Duration::ZERO;
        if outcome.is_ok() && !shutdown.is_requested() {
            env.health().check_now().await;
            env.health().set_started();
            drain_delay = self.drain_delay; // from now on somebody may send traffic
            outcome = start_all(announcers, &mut running, &env, &shutdown).await;
        }
        if outcome.is_ok() && !shutdown.is_requested() {
            tracing::info!(version = %env.info().version, "service is up");
            tokio::select! {
                () = shutdown.requested() => {}
                error = first_failure(&mut running) => outcome = Err(error),
            }
        }
        if outcome.is_err() {
            drain_delay = Duration::ZERO;
        }

        let deadline = if shutdown.is_requested() {
            shutdown.drain_deadline()
        } else {
            Deadline::after(self.drain_timeout)
        };
        match &outcome {
            Ok(()) => tracing::info!(drain = ?deadline.remaining(), "shutting down"),
            // What failed has said so itself.
            Err(_) => {
                tracing::warn!(drain = ?deadline.remaining(), "shutting down after a failure")
            }
        }
        let (announcers, rest): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|running| running.announces);
        stop_all(announcers, deadline, &mut outcome).await;
        env.health().set_draining();
        tokio::time::sleep(drain_delay.min(deadline.remaining())).await;
        stop_all(rest, deadline, &mut outcome).await;
        drop(probes);
        for (name, close) in self.closers.into_inner().into_iter().rev() {
            let close = AssertUnwindSafe(async { close().await }).catch_unwind();
            match tokio::time::timeout(CLOSE_TIMEOUT, close).await {
                Ok(Ok(())) => {}
                Ok(Err(panic)) => {
                    tracing::error!(name = %name, error = panicked(&*panic), "closing failed");
                }
                Err(_) => tracing::warn!(name = %name, "did not close within five seconds"),
            }
        }
        tracing::info!("service has stopped");
        outcome
    }
}

/// Starts one after the other, until all run, one fails, or a shutdown is requested.
async fn start_all(
    components: Vec<Box<dyn Component>>,
    running: &mut Vec<Running>,
    env: &Env,
    shutdown: &Shutdown,
) -> Result<()> {
    for component in components {
        let started = tokio::select! {
            started = Running::start(component, env, shutdown) => started?,
            // One that waits for what failed must not hide why.
            error = first_failure(running) => return Err(error),
        };
        match started {
            Some(started) => running.push(started),
            None => break,
        }
    }
    Ok(())
}

/// Stops the last started first. The first failure is kept, later ones are logged.
async fn stop_all(running: Vec<Running>, deadline: Deadline, outcome: &mut Result<()>) {
    let mut running = VecDeque::from(running);
    while let Some(component) = running.pop_back() {
        if let Err(error) = component.stop(deadline).await {
            tracing::error!(error = error.chain(), "component failed while stopping");
            if outcome.is_ok() {
                *outcome = Err(error);
            }
        }
    }
}

/// Waits until a component fails.
async fn first_failure(running: &mut [Running]) -> Error {
    std::future::poll_fn(|cx| {
        for component in running.iter_mut() {
            if let std::task::Poll::Ready(Err(error)) = component.poll_end(cx) {
                return std::task::Poll::Ready(error);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

struct Running {
    name: Cow<'static, str>,
    announces: bool,
    trigger: ShutdownTrigger,
    task: AbortOnDrop<Result<()>>,
    /// Set once the task has ended and its result was taken.
    ended: bool,
}

impl Running {
    /// Starts a component; none if a shutdown was requested before it was ready.
    async fn start(
        component: Box<dyn Component>,
        env: &Env,
        shutdown: &Shutdown,
    ) -> Result<Option<Running>> {
        let name = component.name();
        let announces = component.announces();
        let (trigger, told) = Shutdown::new();
        let (ready, mut is_ready) = oneshot::channel();
        let task = env.spawn({
            let env = env.clone();
            AssertUnwindSafe(component.run(env, Ready(ready), told)).catch_unwind().map(|result| {
                result.unwrap_or_else(|panic| Err(Error::internal(panicked(&*panic))))
            })
        });
        let mut running =
            Running { name, announces, trigger, task: AbortOnDrop(task), ended: false };
        tokio::select! {
            biased;
            Ok(()) = &mut is_ready => {}
            ended = running.end() => ended?,
            () = shutdown.requested() => {
                running.stop(shutdown.drain_deadline()).await?;
                return Ok(None);
            }
            () = tokio::time::sleep(START_TIMEOUT) => {
                tracing::error!(component = %running.name, "not ready within {START_TIMEOUT:?}");
                return Err(Error::unavailable(
                    "START_TIMEOUT",
                    format!("{} was not ready within {START_TIMEOUT:?}", running.name),
                ));
            }
        }
        tracing::debug!(component = %running.name, "started");
        Ok(Some(running))
    }

    /// The result once the component has ended; pending for ever after that.
    fn poll_end(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<()>> {
        if self.ended {
            return std::task::Poll::Pending;
        }
        self.task.0.poll_unpin(cx).map(|joined| {
            self.ended = true;
            let result = joined.unwrap_or_else(|lost| Err(Error::internal(lost)));
            match &result {
                Ok(()) => tracing::debug!(component = %self.name, "ended"),
                Err(error) => {
                    tracing::error!(component = %self.name, error = error.chain(), "component failed");
                }
            }
            result
        })
    }

    async fn end(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }

    async fn stop(mut self, deadline: Deadline) -> Result<()> {
        self.trigger.shutdown_by(deadline);
        // Counted from now if the deadline has passed: one that used up all the time must not
        // take from the others the moment that they need to stop in order.
        let grace = Deadline::after(deadline.remaining() + ABORT_GRACE);
        match grace.run(self.end()).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(component = %self.name, "aborted at the drain deadline");
                Ok(())
            }
        }
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    format!("panicked: {}", panic_text(panic))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Status;

    type Log = Arc<Mutex<Vec<String>>>;

    struct Part {
        name: &'static str,
        log: Log,
        behaviour: Behaviour,
    }

    #[derive(Clone, Copy)]
    enum Behaviour {
        Serve,
        Announce,
        FailToStart,
        PanicAfterStart,
        NeverReady,
        DropReady,
        EndEarly,
        Invalid,
        FailAfterASecond,
        IgnoreShutdown,
    }

    impl Component for Part {
        fn name(&self) -> Cow<'static, str> {
            self.name.into()
        }

        fn validate(&self) -> Result<()> {
            match self.behaviour {
                Behaviour::Invalid => Err(Error::invalid_argument("WRONG", "wrong")),
                _ => Ok(()),
            }
        }

        fn announces(&self) -> bool {
            matches!(self.behaviour, Behaviour::Announce)
        }

        fn run(
            self: Box<Self>,
            env: Env,
            ready: Ready,
            shutdown: Shutdown,
        ) -> BoxFuture<'static, Result<()>> {
            Box::pin(async move {
                let say = |what: &str| self.log.lock().push(format!("{} {what}", self.name));
                match self.behaviour {
                    Behaviour::FailToStart => {
                        return Err(Error::unavailable("PORT_TAKEN", "port taken"));
                    }
                    Behaviour::NeverReady => std::future::pending().await,
                    Behaviour::DropReady => {
                        drop(ready);
                        return shutdown.requested().map(Ok).await;
                    }
                    Behaviour::EndEarly => return Ok(()),
                    _ => {}
                }
                let up = if env.health().is_started() { " Up" } else { "" };
                say(&format!("start{up}"));
                ready.ready();
                match self.behaviour {
                    Behaviour::PanicAfterStart => panic!("boom"),
                    Behaviour::FailAfterASecond => {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        return Err(Error::unavailable("LOST", "lost"));
                    }
                    Behaviour::IgnoreShutdown => std::future::pending().await,
                    _ => shutdown.requested().await,
                }
                say(&format!("stop {:?}", env.health().status()));
                Ok(())
            })
        }
    }

    fn app(parts: &[(&'static str, Behaviour)]) -> (App, Log) {
        let log = Log::default();
        let mut app = App::new(Env::test("t"));
        for (name, behaviour) in parts {
            app = app.with(Part { name, log: log.clone(), behaviour: *behaviour });
        }
        let closed = log.clone();
        app.on_close("pool", move || async move { closed.lock().push("pool closed".into()) });
        (app, log)
    }

    /// Waits for a condition, on the paused clock.
    async fn until(holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_starts_in_order_and_stops_in_reverse() {
        use Behaviour::{Announce, Serve};
        let (app, log) = app(&[("c", Announce), ("a", Serve), ("b", Serve)]);
        let app = app.with_shutdown(&ShutdownConfig {
            delay: Duration::from_secs(3),
            ..ShutdownConfig::default()
        });
        let health = app.health().clone();
        let (trigger, shutdown) = Shutdown::new();
        let running = tokio::spawn(app.run(shutdown));
        health.watch().wait_for(|status| *status == Status::Up).await.unwrap();
        until(|| log.lock().len() == 3).await;
        let begun = tokio::time::Instant::now();
        trigger.shutdown(Duration::from_secs(30));
        running.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert_eq!(
            *log.lock(),
            [
                "a start",
                "b start",
                "c start Up",
                "c stop Up",
                "b stop Draining",
                "a stop Draining",
                "pool closed"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_cannot_start_stops_the_ones_before_it() {
        use Behaviour::{FailToStart, Serve};
        let (app, log) = app(&[("a", Serve), ("b", FailToStart), ("c", Serve)]);
        let (_trigger, shutdown) = Shutdown::new();
        let error = app.run(shutdown).await.unwrap_err();
        assert_eq!(error.reason(), "PORT_TAKEN");
        assert_eq!(*log.lock(), ["a start", "a stop Draining", "pool closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_shuts_down_in_order_and_is_the_outcome() {
        use Behaviour::{PanicAfterStart, Serve};
        let (app, log) = app(&[("a", Serve), ("b", PanicAfterStart)]);
        let (_trigger, shutdown) = Shutdown::new();
        let error = app.run(shutdown).await.unwrap_err();
        assert!(error.chain().contains("boom"), "{}", error.chain());
        assert_eq!(*log.lock(), ["a start", "b start", "a stop Draining", "pool closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_never_ready_fails_the_start() {
        let (app, _) = app(&[("a", Behaviour::NeverReady)]);
        let (_trigger, shutdown) = Shutdown::new();
        assert_eq!(app.run(shutdown).await.unwrap_err().reason(), "START_TIMEOUT");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_while_starting_is_obeyed() {
        for second in [Behaviour::NeverReady, Behaviour::DropReady] {
            let (app, log) = app(&[("a", Behaviour::Serve), ("b", second)]);
            let app = app.with_shutdown(&ShutdownConfig {
                delay: Duration::from_secs(60),
                ..ShutdownConfig::default()
            });
            let (trigger, shutdown) = Shutdown::new();
            let running = tokio::spawn(app.run(shutdown));
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begun = tokio::time::Instant::now();
            trigger.shutdown(Duration::from_secs(2));
            running.await.unwrap().unwrap();
            // Nobody was told of it yet, so there is nobody to wait for.
            assert!(begun.elapsed() <= Duration::from_secs(2) + ABORT_GRACE);
            assert_eq!(*log.lock(), ["a start", "a stop Draining", "pool closed"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_drops_its_ready_and_goes_on_fails_the_start() {
        let (app, log) = app(&[("a", Behaviour::Serve), ("b", Behaviour::DropReady)]);
        let (_trigger, shutdown) = Shutdown::new();
        assert_eq!(app.run(shutdown).await.unwrap_err().reason(), "START_TIMEOUT");
        assert_eq!(*log.lock(), ["a start", "a stop Draining", "pool closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_while_another_still_starts_is_the_outcome() {
        use Behaviour::{FailAfterASecond, NeverReady};
        let (app, _) = app(&[("a", FailAfterASecond), ("b", NeverReady)]);
        let (_trigger, shutdown) = Shutdown::new();
        let begun = tokio::time::Instant::now();
        assert_eq!(app.run(shutdown).await.unwrap_err().reason(), "LOST");
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_early_ends_alone() {
        let (app, log) = app(&[("a", Behaviour::EndEarly), ("b", Behaviour::Serve)]);
        let health = app.health().clone();
        let (trigger, shutdown) = Shutdown::new();
        let running = tokio::spawn(app.run(shutdown));
        health.watch().wait_for(|status| *status == Status::Up).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(*log.lock(), ["b start"]);
        trigger.shutdown(Duration::from_secs(2));
        running.await.unwrap().unwrap();
        assert_eq!(*log.lock(), ["b start", "b stop Draining", "pool closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_rest_has_the_configured_time() {
        use Behaviour::{FailAfterASecond, IgnoreShutdown};
        let (app, _) = app(&[("a", IgnoreShutdown), ("b", FailAfterASecond)]);
        let app = app.with_shutdown(&ShutdownConfig {
            timeout: Duration::from_secs(4),
            ..ShutdownConfig::default()
        });
        let (_trigger, shutdown) = Shutdown::new();
        let begun = tokio::time::Instant::now();
        let outcome = app.run(shutdown).await;
        assert_eq!(outcome.unwrap_err().reason(), "LOST");
        assert_eq!(begun.elapsed(), Duration::from_secs(1 + 4) + ABORT_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn settings_that_cannot_work_start_nothing_and_close_what_is_open() {
        let (app, log) = app(&[("a", Behaviour::Serve), ("b", Behaviour::Invalid)]);
        let (_trigger, shutdown) = Shutdown::new();
        assert_eq!(app.run(shutdown).await.unwrap_err().reason(), "WRONG");
        assert_eq!(*log.lock(), ["pool closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closer_that_panics_does_not_keep_the_others_open() {
        let (app, log) = app(&[("a", Behaviour::Serve)]);
        app.on_close("broken", || async { panic!("boom") });
        let (trigger, shutdown) = Shutdown::new();
        trigger.shutdown(Duration::from_secs(1));
        app.run(shutdown).await.unwrap();
        assert!(log.lock().contains(&"pool closed".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_run_aborts_every_component() {
        let (app, log) = app(&[("a", Behaviour::Serve)]);
        let held = Arc::downgrade(&log);
        let health = app.health().clone();
        let (_trigger, shutdown) = Shutdown::new();
        let mut run = Box::pin(app.run(shutdown));
        let mut status = health.watch();
        tokio::select! {
            _ = &mut run => panic!("it ended"),
            up = status.wait_for(|status| *status == Status::Up) => drop(up),
        }
        drop((run, log));
        // The component held the log; it is gone once the runtime has dropped the task.
        until(|| held.strong_count() == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ignores_the_shutdown_is_aborted_at_the_deadline() {
        use Behaviour::{IgnoreShutdown, Serve};
        let (app, log) = app(&[("a", Serve), ("b", IgnoreShutdown)]);
        let health = app.health().clone();
        let (trigger, shutdown) = Shutdown::new();
        let running = tokio::spawn(app.run(shutdown));
        health.watch().wait_for(|status| *status == Status::Up).await.unwrap();
        let begun = tokio::time::Instant::now();
        trigger.shutdown(Duration::from_secs(2));
        running.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(2) + ABORT_GRACE);
        assert_eq!(*log.lock(), ["a start", "b start", "a stop Draining", "pool closed"]);
    }

    #[test]
    fn the_plan_reads_as_text() {
        let (app, _) = app(&[("http", Behaviour::Serve)]);
        let app = app.critical_probe("db", || async { Ok(()) });
        let text = app.plan().to_string();
        assert!(text.starts_with("t 0.0.0\n"), "{text}");
        assert!(text.contains("probe      db"), "{text}");
        assert!(text.contains("component  http"), "{text}");
    }
}
