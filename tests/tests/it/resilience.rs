//! Two instances of a service, and what a client of it sees when one of them fails.
//!
//! A proxy stands before each instance and fails on demand; nothing is faked on either side
//! of it. Each scenario runs over HTTP and over gRPC, because a caller should not have to know
//! which of them it uses, and begins with a client that knows nothing yet: from then on the
//! balancer remembers who failed.

use std::time::Duration;

use axum::{Router, routing::get};
use chassis::{
    App, BoxFuture, Code, Context, Deadline, Env, Error, Result,
    core::Metrics,
    discovery::{
        BreakerConfig, ClientConfig, Discovery, Endpoint, Lease, Registrar, Registry, Target,
    },
    grpc::{Channel, from_status},
};
use chassis_test::{Direction, FaultProxy, eventually};
use futures_util::future::join_all;
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
/// Calls at the same time: enough that both instances get some.
const BURST: usize = 16;

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

/// Two instances behind a proxy each, and a client of both.
struct Pair {
    proxies: [FaultProxy; 2],
    services: Vec<Service>,
    call: Box<dyn Fn() -> BoxFuture<'static, Result<String>>>,
    metrics: Metrics,
    protocol: &'static str,
    _leases: Vec<Lease>,
}

impl Pair {
    /// Two instances of HTTP servers.
    async fn over_http() -> Pair {
        let instance = |name: &'static str| {
            let router = Router::new().route("/", get(async move || name));
            App::new(Env::test("items")).with(chassis::http::Server::new(&http(), router))
        };
        Pair::of("http", [instance("first"), instance("second")], |discovery, metrics| {
            let client = chassis::http::Client::builder("items", discovery)
                .config(&config())
                .metrics(metrics)
                .build()
                .unwrap();
            Box::new(move || {
                let call = client.get("/").send();
                Box::pin(async move {
                    let body = call.await?.error_for_status().await?.bytes().await?;
                    String::from_utf8(body.to_vec()).map_err(Error::internal)
                })
            })
        })
        .await
    }

    /// Two instances of gRPC servers.
    async fn over_grpc() -> Pair {
        let instance = |name| {
            let routes = Routes::new(OrderingServer::new(Named(name)));
            App::new(Env::test("items")).with(chassis::grpc::Server::new(&grpc(), routes))
        };
        Pair::of("grpc", [instance("first"), instance("second")], |discovery, metrics| {
            let channel = Channel::builder("items", discovery)
                .config(&config())
                .metrics(metrics)
                .idempotent(true)
                .build()
                .unwrap();
            let client = OrderingClient::new(channel);
            Box::new(move || {
                let mut client = client.clone();
                Box::pin(async move {
                    let order = client.get_order(GetOrderRequest::default()).await;
                    Ok(order.map_err(from_status)?.into_inner().id)
                })
            })
        })
        .await
    }

    async fn of(
        protocol: &'static str,
        instances: [App; 2],
        client: impl FnOnce(&Discovery, &Metrics) -> Box<dyn Fn() -> BoxFuture<'static, Result<String>>>,
    ) -> Pair {
        let registry = Registry::new();
        let (mut proxies, mut services, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        for app in instances {
            let service = Service::start(app).await;
            let proxy = FaultProxy::start(service.address(protocol).to_string()).await;
            let (target, endpoint) =
                (Target::new("items", protocol), Endpoint::new(proxy.address()));
            leases.push(registry.register(target, endpoint).await.unwrap());
            proxies.push(proxy);
            services.push(service);
        }
        let metrics = Metrics::default();
        let pair = Pair {
            proxies: proxies.try_into().ok().unwrap(),
            services,
            call: client(&Discovery::in_process(registry), &metrics),
            metrics,
            protocol,
            _leases: leases,
        };
        pair.until_it_answers("first").await;
        pair.until_it_answers("second").await;
        pair
    }

    /// One call: who answered and how long it took. However it ends, it ends in time.
    async fn call(&self) -> (Result<String>, Duration) {
        let begun = Instant::now();
        let answer = (self.call)().await;
        let took = begun.elapsed();
        assert!(took < TIMEOUT + GRACE, "a call took {took:?}");
        (answer, took)
    }

    /// Calls that are made at the same time.
    async fn burst(&self) -> Vec<String> {
        let calls = join_all((0..BURST).map(|_| self.call())).await;
        calls.into_iter().map(|(answer, _)| answer.unwrap()).collect()
    }

    /// Calls until this instance has answered; none of the calls may fail.
    async fn until_it_answers(&self, name: &str) {
        eventually(&format!("an answer from {name}"), SOON, async || {
            (self.call().await.0.unwrap() == name).then_some(())
        })
        .await;
    }

    /// How often a circuit has opened.
    fn opened(&self) -> u64 {
        let labels = [("service", "items"), ("protocol", self.protocol), ("to", "open")];
        self.metrics.counter("client_breaker_transitions", "", &labels).get()
    }

    async fn stop(self) {
        // What the proxies hold back would keep connections open.
        drop((self.proxies, self.call));
        for service in self.services {
            service.stop().await;
        }
    }
}

/// Connections break, also in the middle of a call: nobody who calls sees it.
async fn cut(pair: Pair) {
    let [first, _] = &pair.proxies;
    let broken = async {
        first.cut();
        eventually("its connections break", SOON, async || {
            (first.connections() == 0).then_some(())
        })
        .await;
    };
    // Until then it may still answer.
    tokio::join!(pair.burst(), broken);
    for _ in 0..5 {
        assert_eq!(pair.burst().await, ["second"; BURST]);
    }
    first.heal();
    pair.until_it_answers("first").await;
    pair.stop().await;
}

/// Connections look alive and nothing comes back: only time-outs find that.
async fn silent(pair: Pair) {
    let [first, _] = &pair.proxies;
    first.silence(Direction::ToClient);
    eventually("the circuit opens", SOON, async || {
        assert_eq!(pair.burst().await, ["second"; BURST]);
        (pair.opened() > 0).then_some(())
    })
    .await;
    // From then on the silent one is not even tried, but for a trial call after a second.
    let mut slow = 0;
    for _ in 0..30 {
        let (answer, took) = pair.call().await;
        assert_eq!(answer.unwrap(), "second");
        slow += u32::from(took >= ATTEMPT);
    }
    assert!(slow <= 1, "{slow} calls met the silent endpoint");
    first.heal();
    pair.until_it_answers("first").await;
    pair.stop().await;
}

/// Nobody answers: the error comes in time, sooner for who has less of it.
async fn dead(pair: Pair) {
    for proxy in &pair.proxies {
        proxy.silence(Direction::ToServer);
    }
    let near = Context::background(&Env::test("caller"))
        .with_deadline(Deadline::after(Duration::from_millis(50)));
    let begun = Instant::now();
    let error = near.scope(pair.call()).await.0.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(begun.elapsed() < ATTEMPT, "the caller's own deadline: {:?}", begun.elapsed());

    let (answer, _) = pair.call().await;
    let error = answer.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Unavailable), "{error:?}");

    for proxy in &pair.proxies {
        proxy.heal();
    }
    eventually("somebody answers again", SOON, async || pair.call().await.0.ok()).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_not_seen_over_http() {
    cut(Pair::over_http().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_not_seen_over_grpc() {
    cut(Pair::over_grpc().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_instance_is_left_and_comes_back_over_http() {
    silent(Pair::over_http().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_instance_is_left_and_comes_back_over_grpc() {
    silent(Pair::over_grpc().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_gone_costs_no_more_than_the_deadline_over_http() {
    dead(Pair::over_http().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_gone_costs_no_more_than_the_deadline_over_grpc() {
    dead(Pair::over_grpc().await).await;
}

/// An instance that answers its name.
struct Named(&'static str);

#[tonic::async_trait]
impl Ordering for Named {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        Ok(Response::new(Order { id: self.0.to_owned(), ..Order::default() }))
    }
}
