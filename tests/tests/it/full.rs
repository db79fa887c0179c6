//! A server with no place left, over sockets: who is still let in, who is refused, who always may.
//!
//! Nothing is timed here. A handler holds its calls until it is told to let them go, so each call
//! is either inside or refused; how that works out over time is in `overload`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use chassis::{
    App, BoxFuture, Context, Env, Error, Result,
    admission::{AdmissionConfig, RoutePriority, ShedConfig},
    core::{AdminConfig, Priority},
    discovery::{
        BreakerConfig, ClientConfig, Discovery, Endpoint, Lease, Registrar, Registry, Target,
    },
    grpc::{Channel, from_status},
    http::{Admin, Client},
};
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
};

/// Longer than this machine can stand still.
const PATIENCE: Duration = Duration::from_secs(600);

/// Holds each call until it is told to let it go.
#[derive(Clone)]
struct House {
    entered: mpsc::UnboundedSender<()>,
    leave: Arc<Semaphore>,
}

impl House {
    async fn hold(&self) {
        self.entered.send(()).unwrap();
        self.leave.acquire().await.unwrap().forget();
    }
}

#[tonic::async_trait]
impl Ordering for House {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        self.hold().await;
        Ok(Response::new(Order::default()))
    }
}

/// Ten places, neither more nor less.
fn ten_places() -> AdmissionConfig {
    AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        priorities: BTreeMap::from([("/alive".to_owned(), RoutePriority::Exempt)]),
        shed: ShedConfig {
            enabled: true,
            min_limit: 10,
            initial_limit: 10,
            max_limit: 10,
            // Other programs on this machine are not what is tested.
            queue_delay: Duration::from_secs(10),
            ..ShedConfig::default()
        },
        ..AdmissionConfig::default()
    }
}

/// Neither retries nor gives up.
fn patient() -> ClientConfig {
    ClientConfig {
        timeout: PATIENCE,
        attempt_timeout: PATIENCE,
        connect_timeout: Duration::from_secs(60),
        max_attempts: 1,
        breaker: BreakerConfig {
            consecutive_failures: 1_000,
            min_calls: 100_000,
            ..BreakerConfig::default()
        },
        ..ClientConfig::default()
    }
}

type Call = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

struct World {
    service: Service,
    inside: mpsc::UnboundedReceiver<()>,
    leave: Arc<Semaphore>,
    call: Call,
    admin: Client,
    /// A route that is exempt.
    alive: Option<Client>,
    _leases: Vec<Lease>,
}

fn house() -> (House, mpsc::UnboundedReceiver<()>) {
    let (entered, inside) = mpsc::unbounded_channel();
    (House { entered, leave: Arc::new(Semaphore::new(0)) }, inside)
}

async fn start(app: App, protocol: &'static str) -> (Service, Discovery, Vec<Lease>) {
    let admin = Admin::new(&AdminConfig { port: 0, ..AdminConfig::default() });
    let service = Service::start(app.with(admin)).await;
    let registry = Registry::new();
    let mut leases = Vec::new();
    for (name, listener, spoken) in [("items", protocol, protocol), ("admin", "admin", "http")] {
        let endpoint = Endpoint::new(service.address(listener));
        leases.push(registry.register(Target::new(name, spoken), endpoint).await.unwrap());
    }
    (service, Discovery::in_process(registry), leases)
}

fn client(name: &str, discovery: &Discovery) -> Client {
    Client::builder(name, discovery).config(&patient()).build().unwrap()
}

fn get_ok(client: &Client, path: &str) -> BoxFuture<'static, Result<()>> {
    let call = client.get(path).send();
    Box::pin(async move { call.await?.error_for_status().await.map(drop) })
}

async fn over_http() -> World {
    let (house, inside) = house();
    let leave = Arc::clone(&house.leave);
    let hold = move || async move { house.hold().await };
    let router = Router::new().route("/", get(hold)).route("/alive", get(|| async {}));
    let config = chassis::http::ServerConfig {
        admission: ten_places(),
        request_timeout: PATIENCE,
        ..http()
    };
    let app = App::new(Env::test("items")).with(chassis::http::Server::new(&config, router));
    let (service, discovery, leases) = start(app, "http").await;
    let items = client("items", &discovery);
    let (alive, admin) = (Some(items.clone()), client("admin", &discovery));
    let call: Call = Box::new(move || get_ok(&items, "/"));
    World { service, inside, leave, call, admin, alive, _leases: leases }
}

async fn over_grpc() -> World {
    let (house, inside) = house();
    let leave = Arc::clone(&house.leave);
    let routes = Routes::new(OrderingServer::new(house));
    let config = chassis::grpc::ServerConfig {
        admission: ten_places(),
        request_timeout: PATIENCE,
        ..grpc()
    };
    let app = App::new(Env::test("items")).with(chassis::grpc::Server::new(&config, routes));
    let (service, discovery, leases) = start(app, "grpc").await;
    let channel = Channel::builder("items", &discovery).config(&patient()).build().unwrap();
    let items = OrderingClient::new(channel);
    let call: Call = Box::new(move || {
        let mut items = items.clone();
        Box::pin(async move {
            let answer = items.get_order(GetOrderRequest::default()).await;
            answer.map(drop).map_err(from_status)
        })
    });
    let admin = client("admin", &discovery);
    World { service, inside, leave, call, admin, alive: None, _leases: leases }
}

impl World {
    /// A call of this priority that is inside now, or why it is not.
    async fn enter(&mut self, priority: Priority) -> Result<JoinHandle<Result<()>>, Error> {
        let context = Context::background(&Env::test("caller")).with_priority(priority);
        let mut call = tokio::spawn(context.scope((self.call)()));
        tokio::select! {
            ended = &mut call => Err(ended.unwrap().expect_err("nobody was let go")),
            Some(()) = self.inside.recv() => Ok(call),
        }
    }

    async fn full(mut self) {
        let mut inside = Vec::new();
        for (priority, places) in
            [(Priority::Sheddable, 8), (Priority::Normal, 1), (Priority::Critical, 1)]
        {
            for _ in 0..places {
                inside.push(self.enter(priority).await.unwrap());
            }
            let refused = self.enter(priority).await.unwrap_err();
            assert_eq!(refused.reason(), "SERVER_OVERLOADED", "{refused:?}");
            assert!(refused.retry_after().is_some());
        }
        for path in ["/livez", "/readyz"] {
            get_ok(&self.admin, path).await.unwrap();
        }
        if let Some(alive) = &self.alive {
            get_ok(alive, "/alive").await.unwrap();
        }
        let metrics = self.service.env.metrics().encode();
        let shed = metrics.lines().filter(|line| line.starts_with("server_shed_calls_total"));
        assert_eq!(shed.filter(|line| line.ends_with(" 1")).count(), 3, "{metrics}");

        self.leave.add_permits(inside.len() + 1);
        for call in inside {
            call.await.unwrap().unwrap();
        }
        (self.call)().await.unwrap();
        self.service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_lets_in_the_important_last_and_answers_probes_over_http() {
    tokio::time::timeout(2 * SOON, over_http().await.full()).await.expect("nobody is stuck");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_lets_in_the_important_last_and_answers_probes_over_grpc() {
    tokio::time::timeout(2 * SOON, over_grpc().await.full()).await.expect("nobody is stuck");
}
