//! A small real service for the tests that need a process of their own.
//!
//! It is the smallest service (`crates/chassis/examples/hello.rs`) with what such tests must
//! be able to do to it: keep a call in flight for as long as its body takes to arrive, panic,
//! and learn the free ports that it took. Cargo gives an integration test the path of a
//! binary of its own package only, so it stands here and not there.

use std::{borrow::Cow, fmt::Write as _, path::PathBuf};

use axum::{
    Router,
    extract::Path,
    routing::{get, post},
};
use chassis::{App, BoxFuture, Component, Env, Error, Ready, Result, Secret, Shutdown, http::Json};
use serde::{Deserialize, Serialize};

/// The settings of the service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The HTTP server.
    pub http: chassis::http::ServerConfig,
    /// What only a test wants.
    pub probe: ProbeConfig,
}

/// What only a test wants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeConfig {
    /// Nobody may see it printed.
    pub password: Secret,
    /// Where the bound addresses are written once everything serves, one `protocol address`
    /// a line; nowhere if not set.
    pub report: Option<PathBuf>,
}

/// What the service answers.
#[derive(Serialize)]
struct Greeting {
    id: u64,
    status: &'static str,
}

async fn show(Path(id): Path<u64>) -> Json<Greeting> {
    tracing::info!(id, "shown");
    Json(Greeting { id, status: "confirmed" })
}

/// In flight until the last byte of the body is there.
async fn echo(body: String) -> String {
    body
}

async fn panics() -> &'static str {
    panic!("boom goes the handler")
}

/// Holds its thread, as no handler must, for as long as a test may take.
async fn blocks() -> &'static str {
    let (_kept, wait) = std::sync::mpsc::channel::<()>();
    let _ = wait.recv_timeout(std::time::Duration::from_secs(3));
    "at last"
}

fn router(_: &ProbeConfig) -> Router {
    Router::new()
        .route("/orders/{id}", get(show))
        .route("/echo", post(echo))
        .route("/panic", get(panics))
        .route("/blocks", get(blocks))
}

async fn state(_: &App, config: &Config) -> Result<ProbeConfig> {
    Ok(config.probe.clone())
}

/// Writes down where the service listens. Last to start, so that everything is bound.
struct Report(Option<PathBuf>);

fn report(config: &ProbeConfig) -> Report {
    Report(config.report.clone())
}

impl Component for Report {
    fn name(&self) -> Cow<'static, str> {
        "report".into()
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            if let Some(path) = self.0 {
                let mut text = String::new();
                for listener in env.listeners() {
                    let _ = writeln!(text, "{} {}", listener.protocol, listener.address);
                }
                // All at once, by a rename: nobody reads half of it.
                let draft = path.with_extension("draft");
                std::fs::write(&draft, text)
                    .and_then(|()| std::fs::rename(&draft, &path))
                    .map_err(Error::internal)?;
            }
            ready.ready();
            shutdown.requested().await;
            Ok(())
        })
    }
}

chassis::service! {
    name: "hello",
    config: Config,
    state: state,
    http: router,
    register: report,
}
