//! Step 1: the smallest service.

use axum::{Router, routing::get};

fn router() -> Router {
    Router::new().route("/hello", get(|| async { "hello" }))
}

chassis::service! { name: "hello", http: router }
