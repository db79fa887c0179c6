//! What a client holds back by itself: its places, a rate, a throttle, a measured limit.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, routing::get};
use chassis_core::{Error, Metrics};
use chassis_discovery::{BreakerConfig, ClientConfig, Lease};
use chassis_http::Client;
use tokio::sync::Semaphore;

use crate::support::{Running, discovery, serve, until};

struct World {
    client: Client,
    metrics: Metrics,
    asked: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
    _server: Running,
    _leases: Vec<Lease>,
}

impl World {
    /// A callee that holds each call until it is let go, and answers with this status.
    async fn new(status: u16, change: impl FnOnce(&mut ClientConfig)) -> World {
        let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                go.acquire().await.unwrap().forget();
                StatusCode::from_u16(status).unwrap()
            }
        };
        let server = serve("greeter", Router::new().route("/", get(handler))).await;
        let (discovery, leases) = discovery("greeter", &[server.address]).await;
        let mut config = ClientConfig {
            breaker: BreakerConfig {
                consecutive_failures: 1_000,
                min_calls: 100_000,
                ..BreakerConfig::default()
            },
            ..ClientConfig::default()
        };
        change(&mut config);
        let metrics = Metrics::default();
        let client = Client::builder("greeter", &discovery).config(&config).metrics(&metrics);
        let client = client.build().unwrap();
        World { client, metrics, asked, go, _server: server, _leases: leases }
    }

    async fn get(&self) -> Result<u16, Error> {
        self.client.get("/").send().await.map(|answer| answer.status().as_u16())
    }

    fn held_back(&self, by: &str) -> u64 {
        let labels = [("service", "greeter"), ("protocol", "http"), ("by", by)];
        self.metrics.counter("client_held_back_calls", "", &labels).get()
    }
}

#[tokio::test]
async fn a_client_keeps_the_rate_that_its_callee_allows() {
    let world = World::new(200, |config| {
        config.rate_limit.enabled = true;
        config.rate_limit.per_second = 1;
        config.rate_limit.burst = 4;
    })
    .await;
    world.go.add_permits(1_000);
    let mut refused = 0;
    for _ in 0..10 {
        if let Err(error) = world.get().await {
            assert_eq!(error.reason(), "TOO_MANY_CALLS");
            assert!(error.was_not_sent() && error.retry_after().is_some(), "{error:?}");
            refused += 1;
        }
    }
    // Some come back while the test runs; none was tried again.
    assert!(refused >= 3, "{refused}");
    assert_eq!(world.asked.load(Ordering::SeqCst), 10 - refused);
    assert_eq!(world.held_back("rate"), refused as u64);
}

#[tokio::test]
async fn a_callee_that_refuses_is_sent_less() {
    let world = World::new(503, |config| {
        config.max_attempts = 1;
        config.throttle.enabled = true;
    })
    .await;
    world.go.add_permits(1_000);
    let mut refused = 0;
    for _ in 0..400 {
        refused += usize::from(world.get().await.is_err());
    }
    let asked = world.asked.load(Ordering::SeqCst);
    assert_eq!(asked + refused, 400);
    assert!(refused >= 200, "{refused} of 400 were held back");
    assert_eq!(world.held_back("throttle"), refused as u64);
}

#[tokio::test]
async fn a_measured_limit_bounds_the_calls_under_way() {
    let world = World::new(200, |config| {
        config.adaptive.enabled = true;
        (config.adaptive.min_limit, config.adaptive.initial_limit) = (1, 1);
    })
    .await;
    let first = tokio::spawn(world.client.get("/").send());
    until("it has the place", || world.asked.load(Ordering::SeqCst) == 1).await;
    let error = world.get().await.unwrap_err();
    assert_eq!(error.reason(), "TOO_MANY_CALLS");
    assert_eq!(world.held_back("adaptive"), 1);
    world.go.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.get().await.unwrap(), 200, "the place is free again");
    let limit = r#"client_concurrency_limit{protocol="http",service="greeter"} 1"#;
    assert!(world.metrics.encode().contains(limit), "{}", world.metrics.encode());
}

#[tokio::test]
async fn so_many_wait_for_a_place_and_no_more() {
    let world = World::new(200, |config| {
        (config.max_concurrent, config.max_waiting) = (1, 1);
        config.max_wait = config.attempt_timeout;
    })
    .await;
    let first = tokio::spawn(world.client.get("/").send());
    until("it has the place", || world.asked.load(Ordering::SeqCst) == 1).await;
    let mut second = std::pin::pin!(world.get());
    let third = tokio::select! {
        biased;
        _ = &mut second => panic!("there is one place"),
        third = world.get() => third,
    };
    let error = third.unwrap_err();
    assert_eq!(error.reason(), "TOO_MANY_CALLS");
    assert!(error.chain().contains("waited 0ns"), "{}", error.chain());
    world.go.add_permits(2);
    assert_eq!(second.await.unwrap(), 200);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}
