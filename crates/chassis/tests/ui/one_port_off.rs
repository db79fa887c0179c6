//! Two ports are what there is without the key.

fn router() -> axum::Router {
    axum::Router::new()
}

mod service {
    chassis::service! { http: super::router, one_port: false }
}

fn main() {}
