//! One port for two needs both of them.

fn router() -> axum::Router {
    axum::Router::new()
}

mod service {
    chassis::service! { http: super::router, one_port: true }
}

fn main() {}
