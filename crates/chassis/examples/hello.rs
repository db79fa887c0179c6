//! The smallest service: `cargo run -p chassis --example hello`, then
//! `curl localhost:8080/orders/7` and `curl localhost:9090/readyz`.

use axum::{Router, routing::get};
use chassis::http::{Json, Path};
use serde::Serialize;

/// What the service answers.
#[derive(Serialize)]
struct Greeting {
    id: u64,
    status: &'static str,
}

async fn show(Path(id): Path<u64>) -> Json<Greeting> {
    Json(Greeting { id, status: "confirmed" })
}

fn router() -> Router {
    Router::new().route("/orders/{id}", get(show))
}

chassis::service! { name: "hello", http: router }
