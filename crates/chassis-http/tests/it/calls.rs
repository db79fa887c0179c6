//! Calls to another service by its name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use chassis_core::{Code, Context, Deadline, Env, Error, SpanKind, config::Loader};
use chassis_discovery::{
    BreakerConfig, ClientConfig, Discovery, Endpoint, Registrar, Registry, Target,
};
use chassis_http::{Client, Problem};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::support::{discovery, nobody, serve, until};

/// How often a handler was asked.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Fails with 503 the first time, then answers.
fn fails_once(asked: &Asked) -> Router {
    async fn handler(State(asked): State<Asked>) -> Response {
        match asked.next() {
            1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => "at last".into_response(),
        }
    }
    Router::new().route("/", any(handler)).with_state(asked.clone())
}

#[tokio::test]
async fn the_trace_goes_on_through_client_and_server() {
    let callee = serve("greeter", Router::new().route("/", get(|| async { "hello" }))).await;
    let (discovery, _leases) = discovery("greeter", &[callee.address]).await;
    let client = Client::new("greeter", &discovery);
    let handler = move || {
        let client = client.clone();
        async move {
            let answer = client.get("/").send().await?;
            Ok::<_, Problem>(answer.bytes().await?)
        }
    };
    let caller = serve("caller", Router::new().route("/ask", get(handler))).await;
    let answer = caller.get("/ask", "x-request-id: r-9\r\n").await;
    assert_eq!((answer.status, &*answer.body), (200, "hello"));

    until("the spans have ended", || caller.env.captured_spans().len() == 2).await;
    let spans = caller.env.captured_spans();
    let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
    let call = spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
    let remote = &callee.env.captured_spans()[0];
    assert_eq!(call.trace.parent, Some(server.trace.span_id));
    assert_eq!(remote.trace.parent, Some(call.trace.span_id));
    assert_eq!(remote.trace.trace_id, server.trace.trace_id);
    assert!(call.attributes.contains(&("server.address", "greeter".to_owned())));
}

#[tokio::test]
async fn what_is_safe_is_retried_and_nothing_else() {
    for (method, key, expected, times) in [
        ("GET", None, 200, 2),
        ("PUT", None, 200, 2),
        ("POST", None, 503, 1),
        ("POST", Some("k-1"), 200, 2),
    ] {
        let asked = Asked::default();
        let server = serve("greeter", fails_once(&asked)).await;
        let (discovery, _leases) = discovery("greeter", &[server.address]).await;
        let client = Client::new("greeter", &discovery);
        let mut request = client.request(method.parse().unwrap(), "/").body("hello");
        if let Some(key) = key {
            request = request.idempotency_key(key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), asked.count()),
            (expected, times),
            "{method} {key:?}"
        );
    }
}

/// As a service has it among its settings.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    greeter: ClientConfig,
}

#[tokio::test]
async fn a_profile_that_is_configured_gives_the_numbers() {
    for (profile, attempts) in [("critical", 4), ("standard", 3), ("best_effort", 1)] {
        let asked = Asked::default();
        let count = asked.clone();
        let broken = move || {
            count.next();
            async { StatusCode::SERVICE_UNAVAILABLE }
        };
        let server = serve("greeter", Router::new().route("/", get(broken))).await;
        let (discovery, _leases) = discovery("greeter", &[server.address]).await;
        let set = [("GREETER__PROFILE", profile), ("GREETER__BACKOFF", "1ms")];
        let settings = Loader::new().env(set).load::<Settings>().unwrap().settings;
        let client = Client::builder("greeter", &discovery).config(&settings.greeter);
        let answer = client.build().unwrap().get("/").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), asked.count()), (503, attempts), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed() {
    let asked = Asked::default();
    async fn handler(State(asked): State<Asked>) -> Response {
        match asked.next() {
            1 => Problem::from(
                Error::unavailable("BUSY", "come back").with_retry_after(Duration::from_secs(2)),
            )
            .into_response(),
            _ => "welcome".into_response(),
        }
    }
    let router = Router::new().route("/", get(handler)).with_state(asked.clone());
    let server = serve("greeter", router).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = Client::new("greeter", &discovery);
    let begun = Instant::now();
    assert_eq!(client.get("/").send().await.unwrap().bytes().await.unwrap(), "welcome");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());

    asked.0.store(0, Ordering::SeqCst);
    let hasty = client.get("/").timeout(Duration::from_secs(1)).send().await.unwrap();
    assert_eq!(hasty.status(), 503, "an answer now is better than a time-out later");
}

#[tokio::test]
async fn a_shorter_time_holds_whether_it_is_said_before_the_body_or_after() {
    // Takes connections and never answers. A server of ours hears how long it has, and would say
    // at the same moment that the time is over: which of the two comes first is chance.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (discovery, _leases) = discovery("greeter", &[silent.local_addr().unwrap()]).await;
    let client = Client::new("greeter", &discovery);
    let short = Duration::from_millis(50);
    for request in [
        client.post("/").timeout(short).body("hello"),
        client.post("/").timeout(short).json(&[7]),
        client.post("/").body("hello").timeout(short),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.reason(), "DEADLINE_EXCEEDED");
    }
}

#[tokio::test]
async fn what_was_not_sent_is_sent_elsewhere_even_a_stream() {
    let echo = |body: Body| async move { axum::body::to_bytes(body, 1024).await.unwrap() };
    let server = serve("greeter", Router::new().route("/", any(echo))).await;
    let (discovery, _leases) = discovery("greeter", &[nobody().await, server.address]).await;
    let client = Client::new("greeter", &discovery);
    for round in 0..10 {
        let answer = client.post("/").body("whole").send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), "whole", "{round}");
        let chunks = ["a ", "stream"].map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let request = Request::post("/").body(body).unwrap();
        let answer = client.call(request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 1024).await.unwrap();
        assert_eq!(body, "a stream", "{round}");
    }
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_walked_past() {
    let asked = Asked::default();
    let count = asked.clone();
    let broken = move || {
        count.next();
        async { StatusCode::INTERNAL_SERVER_ERROR }
    };
    let bad = serve("greeter", Router::new().route("/", get(broken))).await;
    let good = serve("greeter", Router::new().route("/", get(|| async { "fine" }))).await;
    let registry = Registry::new();
    let register = async |address| {
        registry.register(Target::new("greeter", "http"), Endpoint::new(address)).await.unwrap()
    };
    let _bad = register(bad.address).await;
    let env = Env::test("caller");
    let config = ClientConfig {
        breaker: BreakerConfig { consecutive_failures: 2, ..BreakerConfig::default() },
        ..ClientConfig::default()
    };
    let client = Client::builder("greeter", &Discovery::in_process(registry.clone()))
        .config(&config)
        .metrics(env.metrics())
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").send().await.unwrap().status(), 500);
    }
    let error = client.get("/").send().await.unwrap_err();
    assert_eq!(error.reason(), "CIRCUIT_OPEN");
    assert!(error.was_not_sent() && error.retry_after().is_some());

    let _good = register(good.address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").send().await.unwrap().status(), 200);
    }
    assert_eq!(asked.count(), 2);
    let metrics = env.metrics().encode();
    for outcome in ["500", "200", "CIRCUIT_OPEN"] {
        assert!(metrics.contains(&format!(r#"outcome="{outcome}""#)), "{metrics}");
    }
}

#[tokio::test]
async fn nobody_there_fails_at_once_and_says_that_nothing_was_sent() {
    let (discovery, _leases) = discovery("greeter", &[]).await;
    let error = Client::new("greeter", &discovery).get("/").send().await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_ENDPOINTS"));
    assert!(error.was_not_sent());
    assert!(!error.message().contains("greeter"), "the name is for the log: {error}");
    assert!(error.chain().contains("greeter"), "{}", error.chain());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let chunked = || async {
        let chunks = std::iter::repeat_n("0123456789", 10).map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let router = Router::new()
        .route("/declared", get(|| async { "x".repeat(100) }))
        .route("/chunked", get(chunked));
    let server = serve("greeter", router).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = Client::builder("greeter", &discovery);
    let small = client.max_response_bytes(99).build().unwrap();
    let large = Client::builder("greeter", &discovery).max_response_bytes(100).build().unwrap();
    for path in ["/declared", "/chunked"] {
        let error = small.get(path).send().await.unwrap().bytes().await.unwrap_err();
        assert_eq!(error.reason(), "RESPONSE_TOO_LARGE", "{path}");
        assert_eq!(large.get(path).send().await.unwrap().bytes().await.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn an_error_comes_back_as_it_was() {
    let handler = || async {
        Err::<(), _>(Problem::from(
            Error::failed_precondition("ITEM_SOLD", "the item is gone")
                .with_detail("id", "7")
                .with_field("lines[0].id", "is gone")
                .with_source(std::io::Error::other("private")),
        ))
    };
    let server = serve("greeter", Router::new().route("/", get(handler))).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let answer = Client::new("greeter", &discovery).get("/").send().await.unwrap();
    let error = answer.error_for_status().await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, "ITEM_SOLD"));
    assert_eq!((error.message(), error.fields().len()), ("the item is gone", 1));
    assert_eq!(error.details().get("id").map(String::as_str), Some("7"));
    assert!(!error.chain().contains("private"));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_goes_along_and_only_shrinks() {
    let handler = |headers: HeaderMap| async move {
        headers["x-request-timeout-ms"].to_str().unwrap().to_owned()
    };
    let server = serve("greeter", Router::new().route("/", get(handler))).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = Client::new("greeter", &discovery);
    let ask = async |time: Duration| {
        let context = Context::background(&Env::test("caller"));
        context
            .with_deadline(Deadline::after(time))
            .scope(async { client.get("/").send().await?.bytes().await })
            .await
    };
    assert_eq!(ask(Duration::from_millis(700)).await.unwrap(), "700");
    assert_eq!(ask(Duration::from_secs(60)).await.unwrap(), "2000", "one attempt has two seconds");
    let error = ask(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.was_not_sent());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_repeated() {
    let asked = Asked::default();
    async fn handler(State(asked): State<Asked>) -> &'static str {
        if asked.next() == 1 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        "at last"
    }
    let router = Router::new().route("/", get(handler)).with_state(asked.clone());
    let server = serve("greeter", router).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = Client::new("greeter", &discovery);
    assert_eq!(client.get("/").send().await.unwrap().bytes().await.unwrap(), "at last");
    assert_eq!(asked.count(), 2);
}
