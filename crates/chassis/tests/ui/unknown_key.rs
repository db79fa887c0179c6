//! A misspelt key names the allowed ones.

fn router() -> axum::Router {
    axum::Router::new()
}

mod service {
    chassis::service! { htpp: super::router }
}

fn main() {}
