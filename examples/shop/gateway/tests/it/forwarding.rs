//! What is passed on as it is, and what is refused at the edge.

use axum::http::Method;
use chassis::Context;
use serde_json::json;

use crate::support::Edge;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn each_path_goes_to_its_service() {
    let edge = Edge::open().await;
    for (path, answer) in [
        ("/api/products", json!({ "products": ["cup"] })),
        ("/api/orders?customer_id=a%20b&x=1", json!({ "asked": "customer_id=a%20b&x=1" })),
        ("/api/customers/a%2Fb/notifications", json!({ "notifications": ["a/b"] })),
    ] {
        let got = edge.get(path).await;
        assert_eq!((got.status, got.body), (200, answer), "{path}");
    }
}

#[tokio::test]
async fn an_order_is_passed_on_and_its_place_is_one_at_the_edge() {
    let edge = Edge::open().await;
    let context = Context::background(&edge.env);
    let trace = context.trace().trace_id.to_string();
    let headers = [JSON, ("idempotency-key", "k-1")];
    let sent = edge.send(Method::POST, "/api/orders", &headers, r#"{"customer_id":"ada"}"#);
    let answer = context.scope(sent).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.headers["location"], "/api/orders/o-1");
    assert_eq!(answer.body["body"], json!({ "customer_id": "ada" }));
    assert_eq!(answer.body["key"], "k-1");
    assert!(answer.body["traceparent"].as_str().unwrap().contains(&trace), "{answer:?}");

    // And it is found there.
    assert_eq!(edge.get("/api/orders/o-1").await.status, 200);
}

#[tokio::test]
async fn what_a_service_refuses_is_passed_on() {
    let edge = Edge::open().await;
    let headers = [JSON, ("idempotency-key", "reused")];
    let answer = edge.send(Method::POST, "/api/orders", &headers, "{}").await;
    answer.assert_problem(409, "IDEMPOTENCY_KEY_REUSED");
    let answer = edge.send(Method::POST, "/api/orders", &[JSON], "{").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let edge = Edge::open().await;
    for path in ["/", "/api", "/api/nothing", "/orders", "/products", "/api/orders/o-1/x"] {
        let answer = edge.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/api/orders", vec!["GET", "POST"]),
        (Method::PUT, "/api/products", vec!["GET"]),
        (Method::POST, "/api/products/cup", vec!["GET"]),
        (Method::DELETE, "/api/orders/o-1", vec!["GET"]),
        (Method::POST, "/api/customers/ada/notifications", vec!["GET"]),
    ] {
        let answer = edge.send(method.clone(), path, &[JSON], "{}").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let allow = answer.headers["allow"].to_str().unwrap();
        for method in allowed {
            assert!(allow.contains(method), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn a_service_that_is_gone_is_a_problem() {
    let mut edge = Edge::open().await;
    edge.stop("ordering", "http").await;
    for (method, path) in
        [(Method::GET, "/api/orders?customer_id=a"), (Method::POST, "/api/orders")]
    {
        let answer = edge.send(method, path, &[JSON], "{}").await;
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let text = answer.body.to_string();
        assert!(!text.contains("127.0.0.1"), "addresses are nobody's business: {text}");
    }
    assert_eq!(edge.get("/api/products").await.status, 200, "the others are still there");
}
