//! What a component may use of the process that it runs in.
//!
//! It is passed, not global, so that several services can live in one process (the whole
//! shop does, and so do tests), each with its own name, metrics, health and spans.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;

use crate::{
    Context, Health, Metrics, Operations, Plan,
    trace::{SpanRecord, SpanSink},
};

/// Who a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInfo {
    /// The name that others call it by.
    pub name: Cow<'static, str>,
    /// The version of its code.
    pub version: Cow<'static, str>,
    /// This process among others of the same service; random for each start.
    pub instance: String,
}

impl ServiceInfo {
    /// A service of this name and version, with a fresh instance id.
    #[must_use]
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
    ) -> ServiceInfo {
        ServiceInfo {
            name: name.into(),
            version: version.into(),
            instance: uuid::Uuid::now_v7().to_string(),
        }
    }
}

/// The [`ServiceInfo`] of the package that this is written in.
#[macro_export]
macro_rules! service_info {
    () => {
        $crate::service_info!(env!("CARGO_PKG_NAME"))
    };
    ($name:expr) => {
        $crate::ServiceInfo::new($name, env!("CARGO_PKG_VERSION"))
    };
}

/// A socket that the service listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there: `http`, `grpc` or `admin`.
    pub protocol: &'static str,
    /// The bound address, with the real port.
    pub address: SocketAddr,
}

/// A Unix socket that the service listens on. Nobody on another machine can reach it, so it is
/// registered nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListener {
    /// What is spoken there: `http`, `grpc` or `admin`.
    pub protocol: &'static str,
    /// The file of the socket; empty if the socket has none.
    pub path: PathBuf,
}

/// The process around a component. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

struct Inner {
    info: ServiceInfo,
    metrics: Metrics,
    health: Health,
    operations: Operations,
    in_flight: InFlight,
    listeners: Mutex<Vec<Listener>>,
    unix_listeners: Mutex<Vec<UnixListener>>,
    plan: OnceLock<Plan>,
    spans: Spans,
}

enum Spans {
    None,
    Export { sink: Arc<dyn SpanSink>, ratio: f64 },
    Capture(Arc<Captured>),
}

#[derive(Default)]
struct Captured(Mutex<Vec<SpanRecord>>);

impl SpanSink for Captured {
    fn export(&self, span: SpanRecord) {
        self.0.lock().push(span);
    }
}

impl Env {
    /// The environment of a service that exports no spans.
    #[must_use]
    pub fn new(info: ServiceInfo) -> Env {
        Env::build(info, Spans::None)
    }

    /// The environment of a service whose spans go to `sink`.
    ///
    /// `ratio`, 0 to 1, is the share of traces begun here that are sampled; a trace begun
    /// elsewhere is sampled if its head says so.
    #[must_use]
    pub fn with_spans(info: ServiceInfo, sink: Arc<dyn SpanSink>, ratio: f64) -> Env {
        Env::build(info, Spans::Export { sink, ratio })
    }

    /// An environment for tests: everything is sampled and kept for
    /// [`captured_spans`](Env::captured_spans).
    #[must_use]
    pub fn test(name: &'static str) -> Env {
        Env::build(ServiceInfo::new(name, "0.0.0"), Spans::Capture(Arc::default()))
    }

    /// The environment of code that runs in none, such as a unit test of a handler.
    pub(crate) fn detached() -> Env {
        static DETACHED: OnceLock<Env> = OnceLock::new();
        DETACHED.get_or_init(|| Env::new(ServiceInfo::new("unknown", "0.0.0"))).clone()
    }

    fn build(info: ServiceInfo, spans: Spans) -> Env {
        Env(Arc::new(Inner {
            info,
            metrics: Metrics::default(),
            health: Health::default(),
            operations: Operations::default(),
            in_flight: InFlight::default(),
            listeners: Mutex::default(),
            unix_listeners: Mutex::default(),
            plan: OnceLock::new(),
            spans,
        }))
    }

    /// Who the service is.
    #[must_use]
    pub fn info(&self) -> &ServiceInfo {
        &self.0.info
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// What an operator may ask of it.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.0.operations
    }

    /// What it is working on right now.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        &self.0.in_flight
    }

    /// Tells the process of a bound socket, so that it can be registered and shown.
    pub fn announce(&self, listener: Listener) {
        tracing::info!(
            protocol = listener.protocol,
            address = %listener.address,
            "listening"
        );
        self.0.listeners.lock().push(listener);
    }

    /// The sockets bound so far.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.0.listeners.lock().clone()
    }

    /// Tells the process of a bound Unix socket, so that it can be shown.
    pub fn announce_unix(&self, listener: UnixListener) {
        tracing::info!(
            protocol = listener.protocol,
            path = %listener.path.display(),
            "listening"
        );
        self.0.unix_listeners.lock().push(listener);
    }

    /// The Unix sockets bound so far.
    #[must_use]
    pub fn unix_listeners(&self) -> Vec<UnixListener> {
        self.0.unix_listeners.lock().clone()
    }

    /// The plan of the app that runs here; empty before it runs.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.0.plan.get().cloned().unwrap_or_default()
    }

    pub(crate) fn set_plan(&self, plan: Plan) {
        // A second app in the same environment keeps the first plan.
        let _ = self.0.plan.set(plan);
    }

    pub(crate) fn sample_head(&self) -> bool {
        match &self.0.spans {
            Spans::None => false,
            Spans::Export { ratio, .. } => *ratio >= 1.0 || fastrand::f64() < *ratio,
            Spans::Capture(_) => true,
        }
    }

    pub(crate) fn span_sink(&self) -> Option<Arc<dyn SpanSink>> {
        match &self.0.spans {
            Spans::None => None,
            Spans::Export { sink, .. } => Some(sink.clone()),
            Spans::Capture(captured) => Some(captured.clone()),
        }
    }

    /// The spans captured by [`Env::test`]; empty for any other environment.
    #[must_use]
    pub fn captured_spans(&self) -> Vec<SpanRecord> {
        match &self.0.spans {
            Spans::Capture(captured) => captured.0.lock().clone(),
            _ => Vec::new(),
        }
    }

    /// Runs a future whose log lines carry this service's name.
    ///
    /// Dropping it drops the inner future; nothing else is held.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Context::background(self).scope(future)
    }

    /// Spawns background work whose log lines carry this service's name.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.scope(future))
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Env").field(self.info()).finish()
    }
}

/// Counts work that is in flight, by kind, so that a drain can be watched.
#[derive(Clone, Default)]
pub struct InFlight(Arc<RwLock<BTreeMap<&'static str, Arc<AtomicU64>>>>);

impl InFlight {
    /// Counts one piece of work until the guard is dropped.
    #[must_use]
    pub fn enter(&self, kind: &'static str) -> InFlightGuard {
        self.kind(kind).enter()
    }

    /// The work of one kind, for who enters often.
    #[must_use]
    pub fn kind(&self, kind: &'static str) -> InFlightKind {
        let known = self.0.read().get(kind).cloned();
        InFlightKind(known.unwrap_or_else(|| self.0.write().entry(kind).or_default().clone()))
    }

    /// How much of each kind is in flight.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.read().iter().map(|(kind, n)| (*kind, n.load(Ordering::Relaxed))).collect()
    }
}

/// Work in flight of one kind.
#[derive(Clone)]
pub struct InFlightKind(Arc<AtomicU64>);

impl InFlightKind {
    /// Counts one piece of work until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlightGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlightGuard(self.0.clone())
    }
}

/// One piece of work in flight; dropping it ends it.
pub struct InFlightGuard(Arc<AtomicU64>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Span, SpanKind};

    #[test]
    fn in_flight_counts_until_the_guard_is_dropped() {
        let in_flight = InFlight::default();
        let one = in_flight.enter("http");
        let two = in_flight.enter("http");
        assert_eq!(in_flight.counts()["http"], 2);
        drop((one, two));
        assert_eq!(in_flight.counts()["http"], 0);
    }

    #[test]
    fn spans_are_captured_only_where_asked() {
        let env = Env::test("t");
        let mut span = Span::start(&Context::background(&env), SpanKind::Server, "GET /");
        span.set("http.route", "/");
        assert!(env.captured_spans().is_empty());
        drop(span);
        assert_eq!(env.captured_spans()[0].attributes, [("http.route", "/".to_owned())]);

        let plain = Env::new(ServiceInfo::new("p", "1"));
        assert!(!Span::start(&Context::background(&plain), SpanKind::Server, "x").is_recording());
    }
}
