//! The channel and the column of layers that it is made of.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use chassis_core::metrics::Counter;
use chassis_core::{BoxError, BoxFuture, Metrics, Result};
use chassis_discovery::{Balance, ClientConfig, Discovery, Target};
use chassis_resilience::{BulkheadLayer, RetryLayer, TimeoutLayer};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

use super::call::{self, Shared};
use super::classify::classify;
use super::replay::Replay;
use super::retry::Policy;
use super::transport;
use crate::call::method::{Family, Methods};

/// What is below the deadline: one service, its type forgotten.
pub(super) type Column = BoxCloneSyncService<Request<Replay>, Response<Body>, BoxError>;

/// A channel to a service by its name, for generated tonic clients. Cheap to
/// clone; clones share connections, circuits and budgets, so make one for each
/// service that is called.
///
/// ```no_run
/// # use chassis_core::{Result, Metrics};
/// # use chassis_discovery::{ClientConfig, Discovery};
/// use chassis_grpc::Channel;
///
/// # fn connect(discovery: &Discovery, metrics: &Metrics) -> Result<()> {
/// let channel = Channel::builder("greeter", discovery)
///     .metrics(metrics)
///     .config(&ClientConfig::default())
///     .build()?;
/// let client = tonic_health::pb::health_client::HealthClient::new(channel);
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel {
    column: Column,
    shared: Arc<Shared>,
}

/// A channel in the making.
pub struct ChannelBuilder {
    target: Target,
    discovery: Discovery,
    config: ClientConfig,
    metrics: Metrics,
    idempotent: bool,
}

impl Channel {
    /// Begins a channel to the service of this name.
    pub fn builder(service: impl Into<String>, discovery: &Discovery) -> ChannelBuilder {
        ChannelBuilder {
            target: Target::new(service, "grpc"),
            discovery: discovery.clone(),
            config: ClientConfig::default(),
            metrics: Metrics::default(),
            idempotent: false,
        }
    }
}

impl ChannelBuilder {
    /// Sets timeouts, retries and bounds; the defaults suit a service nearby.
    #[must_use]
    pub fn config(mut self, config: &ClientConfig) -> ChannelBuilder {
        self.config = config.clone();
        self
    }

    /// Shows calls, attempts, endpoints and circuits in these metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> ChannelBuilder {
        self.metrics = metrics.clone();
        self
    }

    /// Says that every method of this client may be repeated after it was sent.
    /// For single calls, see [`Idempotent`](crate::Idempotent).
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> ChannelBuilder {
        self.idempotent = idempotent;
        self
    }

    /// The channel. Must be called inside a tokio runtime; connects to nobody yet.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting and what is allowed.
    pub fn build(self) -> Result<Channel> {
        let path = format!("clients.{}", self.target.service);
        self.config.validate(&path)?;
        let shared = Shared {
            timeout: self.config.timeout,
            methods: Arc::new(Methods::new(
                &self.metrics,
                Family {
                    name: "rpc_client_call_duration_seconds",
                    help: "Time that calls took with all their attempts.",
                    labels: vec![("service", self.target.service.clone())],
                },
            )),
        };
        Ok(Channel { column: self.column(), shared: Arc::new(shared) })
    }

    /// The column, outermost first. Above it stands the deadline of the whole
    /// call (`call::send`): outside of everything, because no layer may outlive
    /// the one who waits.
    fn column(&self) -> Column {
        let config = &self.config;
        let service = ServiceBuilder::new()
            // Retry is outside of all that fails for one attempt only, so that
            // the next attempt gets a new timeout, a new place in the bulkhead
            // and another endpoint.
            .layer(RetryLayer::new(
                Policy::new(self.idempotent),
                config.retry_settings(),
                config.retry_budget(),
            ))
            // What an attempt may take goes out with it, so that the server
            // stops working on it when we stop waiting.
            .map_request(stamp(config.attempt_timeout, self.attempts()))
            // The attempt's timeout covers the wait for a place below: a full
            // bulkhead and a slow endpoint feel the same to the caller.
            .layer(TimeoutLayer::new(config.attempt_timeout))
            // The bulkhead counts attempts, not calls: a call that waits for its
            // next attempt occupies nobody. It is above the balancer, because it
            // protects this process from the service as a whole.
            .layer(BulkheadLayer::new(config.max_concurrent, config.max_wait))
            // The balancer picks last, with the newest knowledge, and walks past
            // open circuits: there is one below it for each endpoint.
            .service(self.balance());
        BoxCloneSyncService::new(service)
    }

    fn balance(
        &self,
    ) -> impl Service<Request<Replay>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        // A connection that is not there after half an attempt leaves time for
        // an attempt elsewhere, and was provably never used.
        let half = self.config.attempt_timeout / 2;
        let balance = Balance::new(
            self.target.clone(),
            self.discovery.resolver().watch(&self.target),
            move |endpoint| transport::connect(endpoint.address, half),
            classify,
            self.config.breaker.settings(),
            half,
        );
        balance.bind(&self.metrics);
        balance
    }

    fn attempts(&self) -> Counter {
        self.metrics.counter(
            "client_attempts",
            "Attempts of calls, the first one included.",
            &[("service", &self.target.service), ("protocol", &self.target.protocol)],
        )
    }
}

/// Writes the time of one attempt into its request, and counts it.
fn stamp(
    attempt_timeout: Duration,
    attempts: Counter,
) -> impl Fn(Request<Replay>) -> Request<Replay> + Clone + Send + Sync + 'static {
    move |mut request| {
        attempts.inc();
        call::stamp_timeout(&mut request, attempt_timeout);
        request
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Status>> {
        // Waiting is done inside of the call, where the deadline sees it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call::call(self.column.clone(), Arc::clone(&self.shared), request))
    }
}
