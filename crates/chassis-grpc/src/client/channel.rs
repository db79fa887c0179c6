//! The channel and the column of layers that it is made of.
//!
//! ```text
//!   call::call            context, metadata, span, metrics, deadline: once for a call
//!   ── Retry              attempts, paid out of the budget
//!   ── Hedge              a second copy of a late attempt; only if it is configured
//!   ── HoldBack           a rate, a throttle, a measured limit; only if one is configured
//!   ── Timeout            one attempt
//!   ── Bulkhead           places in this process
//!   ── Balance            one endpoint; its circuit breaker and its load
//!   ── Chaos              faults on purpose; one read unless somebody has set a rule
//!   ── Transport          the wire: time left, attempts before, the first frame
//! ```

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use chassis_core::{BoxFuture, Error, Metrics, Result};
use chassis_discovery::{Affinity, Balance, ClientConfig, Discovery, HoldBack, IfSent, Target};
use chassis_resilience::bulkhead::BulkheadService;
use chassis_resilience::chaos::{Chaos, ChaosLayer, ChaosService};
use chassis_resilience::hedge::{Hedge, HedgeLayer, HedgeService};
use chassis_resilience::retry::{Retry, RetryLayer};
use chassis_resilience::timeout::{Timeout, TimeoutLayer};
use chassis_resilience::{GuardLayer, Guarded};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::util::Either;
use tower::{Layer, Service, ServiceBuilder};

use super::call::{self, Shared};
use super::classify::ByStatus;
use super::fallback::Counted;
use super::replay::Replay;
use super::retry::Policy;
use super::transport::{Transport, Wire};
use crate::call::compression::Compression;
use crate::call::framing::Limit;
use crate::call::method::{Family, Methods};

/// What is below the deadline, outermost first. The whole type, so that a call costs no box
/// for each layer.
pub(super) type Column = Retry<Policy, Either<HedgeService<Policy, Attempt>, Attempt>>;

/// One attempt.
type Attempt = Either<Guarded<Made, HoldBack, IfSent<ByStatus>>, Made>;
type Made = Timeout<BulkheadService<Balance<One, ByStatus, Request<Replay>>>>;

/// One endpoint, and what is done to it on purpose.
type One = ChaosService<Transport, Named, fn(&Request<Replay>) -> Option<Request<Replay>>>;
type Named = fn(&Request<Replay>) -> String;

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
    chaos: Chaos,
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
            chaos: Chaos::disabled(),
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

    /// Lets faults be injected into the calls, as the process's configuration allows
    /// ([`ChaosConfig`](chassis_discovery::ChaosConfig)). The target is `<service>/grpc`, or one
    /// method of it: `<service>/grpc/<package>.<Service>/<Method>`.
    #[must_use]
    pub fn chaos(mut self, chaos: &Chaos) -> ChannelBuilder {
        self.chaos = chaos.clone();
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
        if self.config.cache.enabled {
            let message = format!(
                "{path}.cache.enabled is true, allowed is false: a gRPC client keeps no answers"
            );
            return Err(Error::invalid_argument("INVALID_CONFIG", message));
        }
        let grpc = &self.config.grpc;
        if (grpc.compress_requests || grpc.compressed_answers) && cfg!(not(feature = "compression"))
        {
            let message = format!(
                "{path}.grpc asks for compression, and this program was built without it: enable \
                 the feature `compression`"
            );
            return Err(Error::invalid_argument("INVALID_CONFIG", message));
        }
        let shared = Shared {
            timeout: self.config.timeout,
            max_replay: self.config.max_replay,
            receive: Limit::Receive(grpc.max_receive_message_bytes),
            send: Limit::Send(grpc.max_send_message_bytes),
            compression: Compression {
                sends_from: grpc.compress_requests.then_some(grpc.compress_min_bytes),
                reads: grpc.compressed_answers,
            },
            target: self.target.to_string().into(),
            counted: Counted::new(&self.metrics, &self.target.service),
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
        let policy = Policy::new(self.idempotent);
        let budget = config.retry_budget();
        let hedge = config.hedge.settings().map(Hedge::new);
        let hold_back = HoldBack::new(config, &self.target, &self.metrics);
        ServiceBuilder::new()
            // Retry is outside of all that fails for one attempt only, so that
            // the next attempt gets a new timeout, a new place in the bulkhead
            // and another endpoint.
            .layer(RetryLayer::new(policy, config.retry_settings(), budget.clone()))
            // Below retry, whose budget it shares, because both are load that nobody
            // asked for; above all that the copy should pass anew.
            .option_layer(hedge.map(|hedge| HedgeLayer::new(policy, hedge, budget)))
            // Below retry, because a retry is a call too, and what is held back is never
            // retried; above the timeout, because a callee that does not answer is asked too
            // much.
            .option_layer(hold_back.map(|hold_back| GuardLayer::new(hold_back, IfSent(ByStatus))))
            // The attempt's timeout covers the wait for a place below: a full
            // bulkhead and a slow endpoint feel the same to the caller.
            .layer(TimeoutLayer::new(config.attempt_timeout))
            // The bulkhead counts attempts, not calls: a call that waits for its
            // next attempt occupies nobody. It is above the balancer, because it
            // protects this process from the service as a whole.
            .layer(config.bulkhead())
            // The balancer picks last, with the newest knowledge, and walks past
            // open circuits: there is one below it for each endpoint.
            .service(self.balance())
    }

    fn balance(&self) -> Balance<One, ByStatus, Request<Replay>> {
        let named: Named = |request| format!("{}{}", request.body().target(), request.uri().path());
        let chaos = ChaosLayer::new(self.chaos.clone(), named, Policy::copy as fn(&_) -> _);
        let wire = Wire::new(&self.config, &self.target, &self.metrics);
        let balance = Balance::new(
            self.target.clone(),
            self.discovery.resolver().watch(&self.target),
            // Next to the wire, where all that should notice stands above.
            move |endpoint| chaos.layer(wire.to(endpoint.address)),
            ByStatus,
            |request: &Request<Replay>| request.extensions().get::<Affinity>().copied(),
            self.config.balance_settings(&self.discovery),
        );
        balance.bind(&self.metrics);
        balance
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
        call::call(self.column.clone(), &self.shared, request)
    }
}
