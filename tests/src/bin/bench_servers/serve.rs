//! The servers that are measured. Each prints its address and serves until its standard
//! input ends.

use std::{io::Read as _, net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::Path, routing::get};
use chassis::{
    App, Env, ServiceInfo, Shutdown,
    core::{
        SpanRecord,
        config::{LogFormat, OtlpProtocol, TelemetryConfig},
        telemetry::Telemetry,
        trace::SpanSink,
    },
};
use serde::Serialize;
use tokio::{net::TcpListener, runtime};
use tonic::transport::server::TcpIncoming;

use crate::{Outcome, collector, usual};

/// What every server answers to `GET /orders/7`.
#[derive(Serialize)]
struct Order {
    id: u64,
    status: &'static str,
}

async fn show(Path(id): Path<u64>) -> Json<Order> {
    Json(Order { id, status: "confirmed" })
}

pub(crate) fn router() -> Router {
    Router::new().route("/orders/{id}", get(show))
}

/// Serves one candidate; its spans go to `collector`, or nowhere.
pub(crate) fn serve(name: &str, collector: Option<&str>) -> Outcome<()> {
    let (name, workers) = match name.strip_suffix("-two-cores") {
        Some(name) => (name, 2),
        None => (name, 1),
    };
    let mut builder = runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(workers).enable_all().build()?;
    // The parent holds the other end: with it ends this process, whatever else it does.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    match name {
        "http-bare" => runtime.block_on(http_bare(router())),
        "http-usual" => runtime.block_on(async { http_bare(usual::router(router())?).await }),
        "http-full" => runtime.block_on(ours(0.1, collector)),
        "http-sampled-100" => runtime.block_on(ours(1.0, collector)),
        "grpc-bare" => runtime.block_on(grpc_bare()),
        "grpc-full" => runtime.block_on(ours(0.1, collector)),
        "collector" => runtime.block_on(collector::serve()),
        other => Err(format!("there is no server `{other}`").into()),
    }
}

/// On standard error: standard output is the log.
#[allow(clippy::print_stderr, reason = "how the parent learns of it")]
fn announce(protocol: &str, address: SocketAddr) {
    eprintln!("{protocol} {address}");
}

pub(crate) async fn http_bare(router: Router) -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    announce("http", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn grpc_bare() -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    announce("grpc", listener.local_addr()?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    // As `Server::serve` has it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming(incoming)
        .await?)
}

/// Takes spans and forgets them: what recording costs, without a collector.
struct Nowhere;

impl SpanSink for Nowhere {
    fn export(&self, _: SpanRecord) {}
}

/// A service with everything on, and this share of its traces sampled.
async fn ours(ratio: f64, collector: Option<&str>) -> Outcome<()> {
    let config = TelemetryConfig {
        log_format: LogFormat::Json,
        sample_ratio: ratio,
        otlp_endpoint: collector.map(str::to_owned),
        otlp_protocol: OtlpProtocol::HttpProtobuf,
        // All of them are to be sent.
        span_queue: 100_000,
        ..TelemetryConfig::default()
    };
    let telemetry = Telemetry::install(&config)?;
    let info = ServiceInfo::new("bench", "1.0.0");
    let env = match collector {
        Some(_) => telemetry.env(info),
        None => Env::with_spans(info, Arc::new(Nowhere), ratio),
    };
    let http = chassis::http::ServerConfig { port: 0, ..Default::default() };
    let grpc = chassis::grpc::ServerConfig { port: 0, ..Default::default() };
    let app = App::new(env.clone())
        .with(chassis::http::Server::new(&http, router()))
        .with(chassis::grpc::Server::new(&grpc, tonic::service::Routes::default()));
    let (_trigger, shutdown) = Shutdown::new();
    let told = async {
        let mut status = env.health().watch();
        let _ = status.wait_for(|status| *status == chassis::core::Status::Up).await;
        for listener in env.listeners() {
            announce(listener.protocol, listener.address);
        }
    };
    let (ended, ()) = tokio::join!(app.run(shutdown), told);
    Ok(ended?)
}
