//! Which requests are let in: priorities, load shed, a limit for each caller.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::HeaderMap, routing::any};
use chassis_admission::{AdmissionConfig, RateLimitConfig, RoutePriority, ShedConfig};
use chassis_core::{Component, Context, Env, Priority, propagation::PRIORITY};
use chassis_http::{Client, RETRY_PUSHBACK_MS, Server, ServerConfig};
use chassis_resilience::{
    BoxError, RateLimit,
    rate_limit::shared::{BoxFuture, Grant, TokenStore},
};
use tokio::sync::Semaphore;

use crate::support::{Running, config, discovery, serve, serve_with, start, until};

/// One request at a time.
fn room_for_one() -> AdmissionConfig {
    let shed = ShedConfig {
        enabled: true,
        min_limit: 1,
        initial_limit: 1,
        max_limit: 1,
        queue_delay: Duration::from_secs(10),
        ..ShedConfig::default()
    };
    let priorities = BTreeMap::from([("/alive/{id}".to_owned(), RoutePriority::Exempt)]);
    AdmissionConfig { shed, priorities, ..AdmissionConfig::default() }
}

fn with(admission: AdmissionConfig) -> ServerConfig {
    ServerConfig { admission, ..config() }
}

/// A server whose handler holds each request until it is let go.
struct Held {
    server: Arc<Running>,
    asked: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

impl Held {
    async fn start(admission: AdmissionConfig) -> Held {
        let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                go.acquire().await.unwrap().forget();
            }
        };
        let router = Router::new()
            .route("/items", any(handler))
            .route("/alive/{id}", any(|| async { "alive" }));
        let server = Arc::new(serve_with("items", &with(admission), router).await);
        Held { server, asked, go }
    }

    /// Takes the only place there is.
    async fn fill(&self) -> tokio::task::JoinHandle<u16> {
        let server = Arc::clone(&self.server);
        let call = tokio::spawn(async move { server.get("/items", "").await.status });
        until("it has the place", || self.asked.load(Ordering::SeqCst) == 1).await;
        call
    }

    fn metric(&self, name: &str, label: &str) -> String {
        let text = self.server.env.metrics().encode();
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_request_without_room_is_told_so_before_anything_is_done() {
    let held = Held::start(room_for_one()).await;
    let first = held.fill().await;
    let answer = held.server.get("/items", "").await;
    assert_eq!(answer.status, 503);
    let problem = answer.problem();
    assert_eq!(problem["reason"], "SERVER_OVERLOADED");
    assert_eq!(problem["code"], "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let pushback: u64 = answer.header(RETRY_PUSHBACK_MS).unwrap().parse().unwrap();
    assert!((100..=200).contains(&pushback), "{pushback} ms");
    assert_eq!(held.asked.load(Ordering::SeqCst), 1, "the handler was not asked");
    assert_eq!(held.metric("server_shed_calls_total", "normal"), "1");
    assert_eq!(held.server.get("/alive/7", "").await.status, 200, "an exempt route is answered");
    assert_eq!(held.server.get("/nothing", "").await.status, 503, "nobody knows that route");

    held.go.add_permits(2);
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(held.server.get("/items", "").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_place_back() {
    let held = Held::start(room_for_one()).await;
    let mut leaving = held.server.connect().await;
    let request = b"GET /items HTTP/1.1\r\nhost: test\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut leaving, request).await.unwrap();
    until("it has the place", || held.asked.load(Ordering::SeqCst) == 1).await;
    drop(leaving);
    // One for the next, and one for the first if it ends before anybody sees that it left.
    held.go.add_permits(2);
    let mut status = 503;
    for _ in 0..1_000 {
        status = held.server.get("/items", "").await.status;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn by_default_nothing_is_refused() {
    let held = Held::start(AdmissionConfig::default()).await;
    let calls = (0..64).map(|_| held.server.get("/items", ""));
    held.go.add_permits(64);
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200);
    }
}

/// Says what the handler knows of the priority, and what its headers say of it.
async fn echo(headers: HeaderMap) -> String {
    let header = headers.get(PRIORITY).map(|value| value.to_str().unwrap().to_owned());
    format!("{} {header:?}", Context::current().priority().as_str())
}

#[tokio::test]
async fn a_priority_is_believed_of_who_is_trusted_and_goes_on_with_the_calls() {
    let trusting = AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        ..AdmissionConfig::default()
    };
    let of_route = AdmissionConfig {
        priorities: BTreeMap::from([("/items/{id}".to_owned(), RoutePriority::Critical)]),
        ..AdmissionConfig::default()
    };
    let router = || Router::new().route("/items/{id}", any(echo));
    for (admission, header, expected) in [
        (AdmissionConfig::default(), "", "normal"),
        (AdmissionConfig::default(), "x-request-priority: critical\r\n", "normal"),
        (AdmissionConfig::default(), "x-request-priority: sheddable\r\n", "sheddable"),
        (trusting.clone(), "x-request-priority: critical\r\n", "critical"),
        (trusting.clone(), "x-request-priority: exempt\r\n", "normal"),
        (of_route.clone(), "", "critical"),
        (of_route, "x-request-priority: sheddable\r\n", "sheddable"),
    ] {
        let server = serve_with("items", &with(admission), router()).await;
        let answer = server.get("/items/7", header).await;
        assert_eq!(answer.body, format!("{expected} None"), "{header}");
    }

    // From a context through a client and two services.
    let last = serve_with("items", &with(trusting.clone()), router()).await;
    let (discovery, _leases) = discovery("items", &[last.address]).await;
    let client = Client::new("items", &discovery);
    let middle = Router::new().route(
        "/",
        any(move || {
            let call = client.get("/items/7").send();
            async move { call.await.unwrap().bytes().await.unwrap() }
        }),
    );
    let middle = serve_with("middle", &with(trusting), middle).await;
    let answer = middle.get("/", "x-request-priority: critical\r\n").await;
    assert_eq!(answer.body, "critical None");
    let none = Context::background(&Env::test("t")).priority();
    assert_eq!(none, Priority::Normal);
}

#[tokio::test]
async fn a_request_that_one_has_no_room_for_is_done_by_another() {
    let held = Held::start(room_for_one()).await;
    let _first = held.fill().await;
    let other = serve("items", Router::new().route("/items", any(|| async { "done" }))).await;
    let addresses = [held.server.address, other.address];
    let (discovery, _leases) = discovery("items", &addresses).await;
    let client = Client::new("items", &discovery);
    for _ in 0..20 {
        // Not idempotent; but a request that was shed was not begun.
        let answer = client.post("/items").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(held.metric("server_shed_calls_total", "normal") != "0", "the full one was tried");
}

fn limited(instances: u32) -> AdmissionConfig {
    let rate_limit = RateLimitConfig {
        enabled: true,
        per_second: 1,
        burst: 4,
        lease: 1,
        instances,
        ..RateLimitConfig::default()
    };
    AdmissionConfig { rate_limit, ..AdmissionConfig::default() }
}

async fn refused_of_ten(server: &Running) -> usize {
    let mut refused = 0;
    for _ in 0..10 {
        let answer = server.get("/", "").await;
        if answer.status == 429 {
            assert_eq!(answer.problem()["reason"], "RATE_LIMITED");
            assert!(answer.header("retry-after").is_some());
            refused += 1;
        }
    }
    refused
}

#[tokio::test]
async fn a_caller_that_calls_too_often_is_told_when_to_come_again() {
    let router = || Router::new().route("/", any(|| async {}));
    let server = serve_with("items", &with(limited(3)), router()).await;
    // Some come back while the test runs.
    assert!(refused_of_ten(&server).await >= 3);

    let trusted = AdmissionConfig { trusted_peers: vec!["127.0.0.1".to_owned()], ..limited(3) };
    let server = serve_with("items", &with(trusted), router()).await;
    assert_eq!(refused_of_ten(&server).await, 0);
}

/// A store that cannot be asked.
struct Down;

impl TokenStore for Down {
    fn take<'a>(
        &'a self,
        _: &'a str,
        _: RateLimit,
        _: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        Box::pin(async { Err("down".into()) })
    }
}

#[tokio::test]
async fn without_the_store_each_instance_keeps_its_share_or_refuses() {
    let router = || Router::new().route("/", any(|| async {}));
    for (instances, least, most) in [(1, 3, 6), (4, 5, 9), (0, 10, 10)] {
        let server = Server::new(&with(limited(instances)), router()).rate_limit_store(Down);
        let server = start(Env::test("items"), server).await;
        let refused = refused_of_ten(&server).await;
        assert!((least..=most).contains(&refused), "{refused} refused, {instances} instances");
    }
}

#[test]
fn bad_values_are_refused_at_start() {
    let mut config = config();
    config.admission.shed.normal_share = 2.0;
    let error = Server::new(&config, Router::new()).validate().unwrap_err();
    assert_eq!(error.reason(), "INVALID_CONFIG");
    let message = "http.admission.shed.normal_share is 2.0, allowed is 0.1 to 1.0";
    assert_eq!(error.message(), message);
}

#[tokio::test]
async fn an_exempt_route_leaves_no_span_and_who_is_trusted_can_ask_for_one() {
    const UNSAMPLED: &str =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";
    let trusting = AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        ..AdmissionConfig::default()
    };
    for (admission, spans) in [(AdmissionConfig::default(), 0), (trusting, 1)] {
        let priorities = [("/alive".to_owned(), RoutePriority::Exempt)].into();
        let config = with(AdmissionConfig { priorities, ..admission });
        let router =
            Router::new().route("/alive", any(|| async {})).route("/items", any(|| async {}));
        let server = serve_with("items", &config, router).await;
        server.get("/alive", "").await;
        server.get("/items", UNSAMPLED).await;
        server.get("/items", &format!("{UNSAMPLED}x-force-trace: 1\r\n")).await;
        server.get("/items", "").await;
        until("the span of the last request", || server.env.captured_spans().len() == spans + 1)
            .await;
        assert!(server.env.captured_spans().iter().all(|span| span.name == "GET /items"));
    }
}
