//! `cargo run -p chassis --example one_port`: REST and gRPC on one port.
//!
//! `curl localhost:8080/hello` is HTTP; `grpcurl -plaintext localhost:8080
//! grpc.health.v1.Health/Check` is gRPC. Each has its own metrics, log lines and errors.

use axum::{Router, routing::get};
use chassis::{App, DefaultConfig, Result, grpc, http};
use tonic::service::Routes;

fn router() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

/// Where the services of your contracts go: `Routes::new(..)`. Health is always there.
fn routes() -> Routes {
    Routes::default()
}

fn app(app: App, config: &DefaultConfig) -> App {
    let calls = grpc::Server::new(&config.grpc, routes());
    app.with(http::Server::new(&config.http, router()).with_grpc(calls))
}

async fn assemble(started: App, config: DefaultConfig) -> Result<App> {
    Ok(app(started, &config))
}

fn main() -> chassis::Exit {
    chassis::run(chassis::service_info!("one-port"), assemble)
}
