//! A misspelt key names the allowed ones.

fn router() -> axum::Router {
    axum::Router::new()
}

chassis::service! { htpp: router }
