//! Names that callers invent must not become series: each is memory that nobody frees.

use std::convert::Infallible;

use axum::{Router, body::Body, routing::get};
use chassis::Env;
use http::{Method, Request};
use shop_contracts::ordering::v1::ordering_server::OrderingServer;
use tonic::service::Routes;
use tower::Service as _;

use super::Silent;
use crate::service::{grpc, http};

/// Different paths, methods and user agents.
const MANY: usize = 100_000;

fn series(env: &Env) -> usize {
    env.metrics().encode().lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test]
async fn a_hundred_thousand_paths_methods_and_agents_make_few_series() {
    let env = Env::new(chassis::ServiceInfo::new("greeter", "0.0.0"));
    let router = Router::new()
        .route("/items/{id}", get(|| async { "an item" }))
        .route("/", get(|| async { "hello" }));
    let mut router = chassis::http::Server::new(&http(), router).into_router(&env).unwrap();
    let mut statuses = std::collections::BTreeSet::new();
    for number in 0..MANY {
        let method = match number % 3 {
            0 => Method::GET,
            1 => Method::POST,
            _ => Method::from_bytes(format!("M{number}").as_bytes()).unwrap(),
        };
        let path = match number % 2 {
            0 => format!("/items/{number}?page={number}"),
            _ => format!("/wp-{number}/admin{number}.php"),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("host-{number}"))
            .header("user-agent", format!("agent/{number}"))
            .header("x-request-id", format!("id-{number}"))
            .body(Body::empty())
            .unwrap();
        // A router is always ready.
        let answer: Result<_, Infallible> = router.call(request).await;
        statuses.insert(answer.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 404, 405].into());
    // Two routes, three methods, three statuses, fifteen lines of a histogram.
    let series = series(&env);
    assert!((50..300).contains(&series), "{series}");
}

#[tokio::test]
async fn a_hundred_thousand_names_of_calls_make_few_series() {
    let env = Env::new(chassis::ServiceInfo::new("greeter", "0.0.0"));
    let routes = Routes::new(OrderingServer::new(Silent));
    let mut calls = chassis::grpc::Server::new(&grpc(), routes).into_service(&env, None).unwrap();
    for number in 0..MANY {
        let path = match number % 2 {
            0 => format!("/shop.ordering.v1.Ordering/Get{number}"),
            _ => format!("/made.up.v{number}.Service/Call"),
        };
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("user-agent", format!("agent/{number}"))
            .body(Body::empty())
            .unwrap();
        let answer = calls.call(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "12");
    }
    let series = series(&env);
    assert!((5..100).contains(&series), "{series}");
}
