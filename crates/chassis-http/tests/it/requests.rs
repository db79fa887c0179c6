//! What the edge does for a request that is served.

use std::time::Duration;

use axum::{Router, routing::get};
use chassis_core::{Context, SpanKind};
use tokio::{io::AsyncWriteExt, time::Instant};

use crate::support::{serve, until};

fn router() -> Router {
    Router::new()
        .route("/items/{id}", get(|| async { "an item" }))
        .route("/panic", get(|| async { panic!("the handler is broken") as &'static str }))
        .route(
            "/left",
            get(|| async {
                Context::current().deadline().unwrap().remaining().as_millis().to_string()
            }),
        )
        .route(
            "/carried",
            get(|| async {
                let context = Context::current();
                let state = context.trace().state.clone().unwrap_or_default();
                format!("{state} {}", context.baggage().header().unwrap_or_default())
            }),
        )
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                "never"
            }),
        )
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_request_id_and_the_server_lives() {
    let server = serve("greeter", router()).await;
    let answer = server.get("/panic", "x-request-id: r-7\r\n").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("x-request-id"), Some("r-7"));
    let problem = answer.problem();
    assert_eq!(problem["request_id"], "r-7");
    assert_eq!(problem["detail"], "internal error");
    assert!(!answer.body.contains("broken"));
    assert_eq!(server.get("/items/1", "").await.status, 200);
    assert_eq!(server.env.in_flight().counts()["http"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_callers_time_is_the_deadline() {
    let server = serve("greeter", router()).await;
    let begun = Instant::now();
    let answer = server.get("/slow", "x-request-timeout-ms: 1500\r\n").await;
    assert_eq!((answer.status, begun.elapsed().as_millis()), (504, 1500));
    assert_eq!(answer.problem()["code"], "DEADLINE_EXCEEDED");

    let left = server.get("/left", "x-request-timeout-ms: 1500\r\n").await.body;
    assert_eq!(left, "1500");
    let left = server.get("/left", "x-request-timeout-ms: 99999999\r\n").await.body;
    assert_eq!(left, "30000", "a caller may not give more than the server allows");
    let left = server.get("/left", "x-request-timeout-ms: soon\r\n").await.body;
    assert_eq!(left, "30000");
    assert_eq!(server.get("/left", "x-request-timeout-ms: 0\r\n").await.status, 504);
}

#[tokio::test]
async fn lists_that_come_in_several_lines_are_one() {
    let server = serve("greeter", router()).await;
    let headers = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                   tracestate: a=1\r\ntracestate: b=2\r\n\
                   baggage: shop=berlin\r\nbaggage: test=7\r\n";
    assert_eq!(server.get("/carried", headers).await.body, "a=1,b=2 shop=berlin,test=7");
}

#[tokio::test]
async fn the_trace_of_the_caller_is_continued() {
    let server = serve("greeter", router()).await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let answer = server.get("/items/7?secret=1", parent).await;
    assert_eq!(answer.header("x-request-id"), Some("0af7651916cd43dd8448eb211c80319c"));
    let spans = server.env.captured_spans();
    let span = spans.first().unwrap();
    assert_eq!((span.kind, &*span.name), (SpanKind::Server, "GET /items/{id}"));
    assert_eq!(span.trace.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.trace.parent.unwrap().to_string(), "b7ad6b7169203331");
    assert!(span.attributes.contains(&("url.path", "/items/7".to_owned())));
    assert!(span.attributes.contains(&("http.response.status_code", "200".to_owned())));
}

#[tokio::test]
async fn requests_are_counted_by_template_and_unknown_paths_share_one() {
    let server = serve("greeter", router()).await;
    for id in 0..3 {
        server.get(&format!("/items/{id}"), "").await;
        server.get(&format!("/wp-admin/{id}"), "").await;
    }
    server.raw("BREW / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
    let text = server.env.metrics().encode();
    let count = |labels: &[&str]| {
        text.lines()
            .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    };
    assert_eq!(count(&[r#"http_route="/items/{id}""#, r#"status_code="200""#]), 3, "{text}");
    assert_eq!(count(&[r#"http_route="unmatched""#, r#"status_code="404""#]), 4, "{text}");
    assert_eq!(count(&[r#"http_request_method="_OTHER""#]), 1, "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_handler() {
    let server = serve("greeter", router()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let in_flight = || server.env.in_flight().counts().get("http").copied().unwrap_or_default();
    until("the request is in flight", || in_flight() == 1).await;
    drop(stream);
    until("the request is gone", || in_flight() == 0).await;
    assert!(server.env.metrics().encode().contains(r#"status_code="499""#));
}
