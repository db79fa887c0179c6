//! Two instances of a service, and what a client of it sees when one of them fails.
//!
//! A proxy stands before each instance and fails on demand; nothing is faked on either side
//! of it. The same scenario runs over HTTP and over gRPC, because a caller should not have to
//! know which of them it uses.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use chassis::{
    App, Code, Context, Deadline, Env, Error, Result,
    core::Metrics,
    discovery::{
        BreakerConfig, ClientConfig, Discovery, Endpoint, Lease, Registrar, Registry, Target,
    },
    grpc::{Channel, from_status},
};
use chassis_test::{Direction, FaultProxy, eventually};
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
};

/// The whole time of a call.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The time of one attempt: a call that met a silent endpoint took at least this long.
const ATTEMPT: Duration = Duration::from_millis(400);
/// How much later than its deadline a call may end on a busy machine.
const GRACE: Duration = Duration::from_secs(1);

fn config() -> ClientConfig {
    ClientConfig {
        timeout: TIMEOUT,
        attempt_timeout: ATTEMPT,
        max_attempts: 4,
        retry_budget: 1.0,
        backoff: Duration::from_millis(1),
        breaker: BreakerConfig {
            consecutive_failures: 3,
            // Long enough for a few calls to be made in peace, short enough to wait for.
            open_for: Duration::from_secs(1),
            ..BreakerConfig::default()
        },
        ..ClientConfig::default()
    }
}

/// Two instances behind a proxy each, and how to reach them.
struct Pair {
    proxies: [FaultProxy; 2],
    services: [Service; 2],
    discovery: Discovery,
    _leases: Vec<Lease>,
}

impl Pair {
    async fn of(protocol: &'static str, instances: [App; 2]) -> Pair {
        let registry = Registry::new();
        let (mut proxies, mut services, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        for app in instances {
            let service = Service::start(app).await;
            let proxy = FaultProxy::start(service.address(protocol).to_string()).await;
            let address: SocketAddr = proxy.address();
            let target = Target::new("items", protocol);
            leases.push(registry.register(target, Endpoint::new(address)).await.unwrap());
            proxies.push(proxy);
            services.push(service);
        }
        Pair {
            proxies: proxies.try_into().ok().unwrap(),
            services: services.try_into().ok().unwrap(),
            discovery: Discovery::in_process(registry),
            _leases: leases,
        }
    }

    async fn stop(self) {
        // What the proxies held back would keep connections open.
        drop(self.proxies);
        for service in self.services {
            service.stop().await;
        }
    }
}

/// One call: who answered and how long it took. Whatever happens, it keeps its deadline.
async fn timed(call: &impl AsyncFn() -> Result<String>) -> (Result<String>, Duration) {
    let begun = Instant::now();
    let answer = call().await;
    let took = begun.elapsed();
    assert!(took < TIMEOUT + GRACE, "a call took {took:?}");
    (answer, took)
}

/// Waits until this instance has answered a call; none of the calls may fail.
async fn answers_come_from(name: &str, call: &impl AsyncFn() -> Result<String>) {
    eventually(&format!("an answer from {name}"), SOON, async || {
        let (answer, _) = timed(call).await;
        (answer.unwrap() == name).then_some(())
    })
    .await;
}

fn opened(metrics: &Metrics, protocol: &str) -> u64 {
    let labels = [("service", "items"), ("protocol", protocol), ("to", "open")];
    metrics.counter("client_breaker_transitions", "", &labels).get()
}

async fn scenario(
    pair: &Pair,
    metrics: &Metrics,
    protocol: &str,
    call: impl AsyncFn() -> Result<String>,
) {
    let [first, second] = &pair.proxies;
    answers_come_from("first", &call).await;
    answers_come_from("second", &call).await;

    // Cut: connections break, also in the middle of a call. Nobody who calls sees it.
    first.cut();
    for _ in 0..50 {
        assert_eq!(timed(&call).await.0.unwrap(), "second");
    }
    first.heal();
    answers_come_from("first", &call).await;

    // Silent: connections look alive and nothing comes back. The time-out of an attempt
    // finds it, and after a few of them the circuit opens.
    let before = opened(metrics, protocol);
    first.silence(Direction::ToClient);
    eventually("the circuit opens", SOON, async || {
        let (answer, _) = timed(&call).await;
        assert_eq!(answer.unwrap(), "second");
        (opened(metrics, protocol) > before).then_some(())
    })
    .await;
    // From then on the silent one is not even tried.
    let mut slow = 0;
    for _ in 0..30 {
        let (answer, took) = timed(&call).await;
        assert_eq!(answer.unwrap(), "second");
        slow += u32::from(took >= ATTEMPT);
    }
    // A trial call, once the circuit is half open, is one of them.
    assert!(slow <= 1, "{slow} calls met the silent endpoint");
    first.heal();
    answers_come_from("first", &call).await;

    // Nobody answers: the error comes in time, sooner for who has less time.
    for proxy in [first, second] {
        proxy.silence(Direction::ToServer);
    }
    let (answer, _) = timed(&call).await;
    let error = answer.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Unavailable), "{error:?}");
    let begun = Instant::now();
    let near = Context::background(&Env::test("caller"))
        .with_deadline(Deadline::after(Duration::from_millis(100)));
    near.scope(call()).await.unwrap_err();
    assert!(begun.elapsed() < ATTEMPT, "the caller's own deadline holds: {:?}", begun.elapsed());
    for proxy in [first, second] {
        proxy.heal();
    }
    // Both circuits may be open: wait until one answers, then the other.
    eventually("somebody answers", SOON, async || timed(&call).await.0.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_client_walks_past_an_instance_that_fails() {
    let instance = |name: &'static str| {
        let router = Router::new().route("/", get(async move || name));
        App::new(Env::test("items")).with(chassis::http::Server::new(&http(), router))
    };
    let pair = Pair::of("http", [instance("first"), instance("second")]).await;
    let metrics = Metrics::default();
    let client = chassis::http::Client::builder("items", &pair.discovery)
        .config(&config())
        .metrics(&metrics)
        .build()
        .unwrap();
    scenario(&pair, &metrics, "http", async || {
        let body = client.get("/").send().await?.error_for_status().await?.bytes().await?;
        String::from_utf8(body.to_vec()).map_err(Error::internal)
    })
    .await;
    drop(client);
    pair.stop().await;
}

/// An instance that answers its name.
struct Named(&'static str);

#[tonic::async_trait]
impl Ordering for Named {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        Ok(Response::new(Order { id: self.0.to_owned(), ..Order::default() }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_channel_walks_past_an_instance_that_fails() {
    let instance = |name| {
        let routes = Routes::new(OrderingServer::new(Named(name)));
        App::new(Env::test("items")).with(chassis::grpc::Server::new(&grpc(), routes))
    };
    let pair = Pair::of("grpc", [instance("first"), instance("second")]).await;
    let metrics = Metrics::default();
    let channel = Channel::builder("items", &pair.discovery)
        .config(&config())
        .metrics(&metrics)
        .idempotent(true)
        .build()
        .unwrap();
    let client = Arc::new(OrderingClient::new(channel));
    scenario(&pair, &metrics, "grpc", async || {
        let mut client = OrderingClient::clone(&client);
        let order = client.get_order(GetOrderRequest::default()).await.map_err(from_status)?;
        Ok(order.into_inner().id)
    })
    .await;
    drop(client);
    pair.stop().await;
}
