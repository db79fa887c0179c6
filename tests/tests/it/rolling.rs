//! A service behind two instances that is restarted fifty times, one instance after the other,
//! while it is called: no call fails.
//!
//! Also none that must not be repeated: a client repeats a POST only if it provably was not
//! begun, so each that ends well was done once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use chassis::{
    App, Env,
    core::config::ShutdownConfig,
    discovery::{Discovery, Registry},
    grpc::Channel,
    http::Client,
};
use chassis_test::eventually;
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
};

const RESTARTS: usize = 50;
/// In which callers hear that an instance leaves. Without it a POST over HTTP/1 can meet the end of
/// its connection, and nobody knows whether it was begun.
const DELAY: Duration = Duration::from_millis(50);
/// Callers of each protocol.
const CALLERS: usize = 4;

/// How many calls were done, by all instances and by one of them.
#[derive(Clone, Default)]
struct Done {
    by_all: Arc<AtomicU64>,
    over_http: Arc<AtomicU64>,
    over_grpc: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Ordering for Done {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        // In flight for a moment, so that a restart finds some under way.
        tokio::task::yield_now().await;
        self.by_all.fetch_add(1, SeqCst);
        self.over_grpc.fetch_add(1, SeqCst);
        Ok(Response::new(Order::default()))
    }
}

struct Instance {
    service: Service,
    done: Done,
}

impl Instance {
    /// As a process of its own would: the registry is all that they share.
    async fn start(registry: &Registry, by_all: &Arc<AtomicU64>) -> Instance {
        let discovery = Discovery::in_process(registry.clone());
        let done = Done { by_all: by_all.clone(), ..Done::default() };
        let state = done.clone();
        let add = move || {
            let done = state.clone();
            async move {
                tokio::task::yield_now().await;
                done.by_all.fetch_add(1, SeqCst);
                done.over_http.fetch_add(1, SeqCst);
                "done"
            }
        };
        let app = App::new(Env::test("items"))
            .with(chassis::grpc::Server::new(
                &grpc(),
                Routes::new(OrderingServer::new(done.clone())),
            ))
            .with(chassis::http::Server::new(&http(), Router::new().route("/items", post(add))))
            .with(discovery.registration())
            .with_shutdown(&ShutdownConfig { delay: DELAY, ..ShutdownConfig::default() });
        Instance { service: Service::start(app).await, done }
    }

    /// Waits until it has answered some of each kind.
    async fn is_called(&self) {
        eventually("it is called", SOON, async || {
            let calls = [&self.done.over_http, &self.done.over_grpc];
            calls.iter().all(|calls| calls.load(SeqCst) > 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rolling_restarts_of_two_instances_fail_no_call() {
    let registry = Registry::new();
    let discovery = Discovery::in_process(registry.clone());
    let by_all = Arc::new(AtomicU64::new(0));
    let mut instances =
        vec![Instance::start(&registry, &by_all).await, Instance::start(&registry, &by_all).await];

    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let client = Client::new("items", &discovery);
    let channel = Channel::builder("items", &discovery).build().unwrap();
    // They announce themselves once they are up.
    eventually("they are known", SOON, async || {
        let mut orders = OrderingClient::new(channel.clone());
        let over_grpc = orders.get_order(GetOrderRequest::default()).await.is_ok();
        (over_grpc && client.post("/items").send().await.is_ok()).then_some(())
    })
    .await;
    let before = by_all.load(SeqCst);
    for _ in 0..CALLERS {
        let (client, over) = (client.clone(), over.clone());
        callers.spawn(async move {
            let mut calls = 0_u64;
            while !over.load(SeqCst) {
                let answer = client.post("/items").send().await;
                let answer = answer.unwrap_or_else(|error| panic!("{}", error.chain()));
                assert_eq!(answer.status(), 200);
                answer.bytes().await.unwrap();
                calls += 1;
            }
            calls
        });
    }
    for _ in 0..CALLERS {
        let (mut orders, over) = (OrderingClient::new(channel.clone()), over.clone());
        callers.spawn(async move {
            let mut calls = 0_u64;
            while !over.load(SeqCst) {
                orders.get_order(GetOrderRequest::default()).await.unwrap();
                calls += 1;
            }
            calls
        });
    }

    for round in 0..RESTARTS {
        for instance in &instances {
            instance.is_called().await;
        }
        let old = instances.remove(0);
        old.service.stop().await;
        instances.push(Instance::start(&registry, &by_all).await);
        assert_eq!(instances.len(), 2, "{round}");
    }
    over.store(true, SeqCst);
    let calls: u64 = callers.join_all().await.iter().sum();
    // Each was done once: none was lost, none repeated.
    assert_eq!(by_all.load(SeqCst) - before, calls);
    assert!(calls > (RESTARTS * CALLERS) as u64, "{calls}");
}
