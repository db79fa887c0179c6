//! What clients send that nobody should, and what becomes of all others meanwhile.
//!
//! Limits of one request stand in the tests of chassis-http, those of a connection in the tests
//! of chassis-net. Here is what needs both servers, many connections, or a process of its own.

mod bytes;
mod crowd;
mod floods;
mod frames;
mod handlers;
mod memory;
mod series;
mod traces;

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use chassis::{App, Env};
use chassis_test::eventually;
use futures_util::StreamExt as _;
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_server::{Ordering, OrderingServer},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
    wire,
};

/// The path of the only call.
const CALL: &str = "/shop.ordering.v1.Ordering/GetOrder";

/// A handler that never answers.
struct Silent;

#[tonic::async_trait]
impl Ordering for Silent {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        std::future::pending().await
    }
}

/// What answers, never answers, or answers without an end.
fn router() -> Router {
    let endless = || async {
        let chunk = bytes_of(64 * 1024);
        Body::from_stream(futures_util::stream::repeat(chunk).map(Ok::<_, std::io::Error>))
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/silent", get(std::future::pending::<&str>))
        .route("/endless", get(endless))
        .route("/echo", post(|body: String| async { body }))
}

fn bytes_of(count: usize) -> axum::body::Bytes {
    vec![b'x'; count].into()
}

/// Both servers.
async fn serve() -> Service {
    let calls = chassis::grpc::Server::new(&grpc(), Routes::new(OrderingServer::new(Silent)));
    let server = chassis::http::Server::new(&http(), router());
    Service::start(App::new(Env::test("greeter")).with(calls).with(server)).await
}

/// That somebody else is served.
async fn others_are_served(address: SocketAddr) {
    let answer = tokio::time::timeout(SOON, wire::get(address, "/", &[])).await;
    assert_eq!(answer.expect("others are served").body, "hello");
}

/// Waits until this server has no connection and nothing in flight any more.
async fn is_left_alone(env: &Env, server: &str) {
    let open = env.metrics().gauge("server_connections", "", &[("server", server)]);
    eventually("nothing is left", SOON, async || {
        let in_flight = env.in_flight().counts().get(server).copied().unwrap_or_default();
        (open.get() == 0 && in_flight == 0).then_some(())
    })
    .await;
}
