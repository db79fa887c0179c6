//! Spans and metrics leave the process by OTLP: a collector sees who did what, below whom.
//!
//! A test binary of its own, because `Telemetry` is installed once in a process and from
//! then on writes the log of everything in it. So there is also one test only, which first
//! has a collector and then loses it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    routing::{get, post},
};
use chassis::{
    App, Env, Error, ServiceInfo, Shutdown,
    core::{
        ShutdownTrigger, Status,
        config::{LogFormat, TelemetryConfig},
        telemetry::Telemetry,
    },
    discovery::{Discovery, Registry},
    http::{Client, Problem, Server, ServerConfig},
};
use chassis_test::eventually;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status as GrpcStatus};

/// Longer than the five seconds for which the exporter gathers spans.
const SOON: Duration = Duration::from_secs(30);

/// A collector that keeps what it gets, with name and version of the service.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    metrics: Arc<Mutex<Vec<(String, Metric)>>>,
}

fn service(resource: Option<Resource>) -> String {
    let attributes = resource.unwrap_or_default().attributes;
    let of = |key| text(&attributes, key).unwrap_or_default();
    format!("{} {}", of("service.name"), of("service.version"))
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, GrpcStatus> {
        for resource in request.into_inner().resource_spans {
            let service = service(resource.resource);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.spans.lock().push((service.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn take_metrics(State(collector): State<Collector>, body: Bytes) {
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        for resource in request.resource_metrics {
            let service = service(resource.resource);
            for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                collector.metrics.lock().push((service.clone(), metric));
            }
        }
    }

    /// Takes metrics over HTTP until the test ends.
    async fn serve_http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/metrics", post(Collector::take_metrics))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match &attributes.iter().find(|attribute| attribute.key == key)?.value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

impl Collector {
    async fn serve(&self) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (address, serving)
    }

    /// The spans of a trace by service, version included, and kind.
    fn of_trace(&self, trace_id: &str) -> BTreeMap<(String, SpanKind), Span> {
        let all = self.spans.lock().clone();
        let of_trace = all.into_iter().filter(|(_, span)| hex(&span.trace_id) == trace_id);
        of_trace.map(|(service, span)| ((service, span.kind()), span)).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A service that runs until it is dropped.
struct Service {
    env: Env,
    _trigger: ShutdownTrigger,
}

async fn start(env: Env, router: Router, discovery: &Discovery) -> Service {
    let config = ServerConfig { port: 0, ..ServerConfig::default() };
    let app =
        App::new(env.clone()).with(Server::new(&config, router)).with(discovery.registration());
    let (trigger, shutdown) = Shutdown::new();
    tokio::spawn(app.run(shutdown));
    let mut status = env.health().watch();
    let up = status.wait_for(|status| *status == Status::Up);
    tokio::time::timeout(SOON, up).await.expect("it should be up").unwrap();
    Service { env, _trigger: trigger }
}

impl Service {
    fn address(&self) -> SocketAddr {
        self.env.listeners()[0].address
    }
}

/// Asks the second service, or fails.
async fn front(State(back): State<Client>) -> Result<String, Problem> {
    let answer = back.get("/back").send().await?.error_for_status().await?;
    Ok(String::from_utf8_lossy(&answer.bytes().await?).into_owned())
}

async fn fails() -> Result<(), Problem> {
    Err(Error::internal("the disk is on fire").into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_metrics_reach_a_collector_and_a_dead_one_stops_nobody() {
    let collector = Collector::default();
    let (address, collecting) = collector.serve().await;
    let telemetry = Telemetry::install(&TelemetryConfig {
        log_format: LogFormat::Json,
        log_filter: "off".to_owned(),
        otlp_endpoint: Some(format!("http://{address}")),
        otlp_metrics_endpoint: Some(format!("http://{}", collector.serve_http().await)),
        metrics_interval: Duration::from_secs(1),
        ..TelemetryConfig::default()
    })
    .unwrap();
    let env = |name: &'static str| telemetry.env(ServiceInfo::new(name, "1.2.3"));
    let discovery = Discovery::in_process(Registry::new());
    let back = Router::new().route("/back", get(async || "hello")).route("/fails", get(fails));
    let back = start(env("back"), back, &discovery).await;
    let front_env = env("front");
    let client = Client::builder("back", &discovery).metrics(front_env.metrics()).build().unwrap();
    let router = Router::new().route("/front", get(front)).with_state(client);
    let front = start(front_env, router, &discovery).await;

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    call(front.address(), "/front", &format!("00-{trace}-{parent}-01"), "200 OK").await;
    let spans = eventually("three spans arrive", SOON, async || {
        let spans = collector.of_trace(trace);
        (spans.len() == 3).then_some(spans)
    })
    .await;
    let span = |service: &str, kind| &spans[&(service.to_owned(), kind)];
    let server = span("front 1.2.3", SpanKind::Server);
    let client = span("front 1.2.3", SpanKind::Client);
    let below = span("back 1.2.3", SpanKind::Server);
    assert_eq!([&*server.name, &*client.name, &*below.name], ["GET /front", "GET", "GET /back"]);
    assert_eq!(hex(&server.parent_span_id), parent);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(below.parent_span_id, client.span_id);
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!(text(&below.attributes, "http.route").as_deref(), Some("/back"));
    assert_eq!(text(&below.attributes, "http.response.status_code").as_deref(), Some("200"));

    // Its metrics are pushed, and its trace is the example of how long it took.
    for name in ["http_server_request_duration_seconds", "http_client_request_duration_seconds"] {
        eventually(&format!("{name} arrives"), SOON, async || {
            let metrics = collector.metrics.lock();
            let durations = metrics.iter().filter_map(|(service, metric)| match &metric.data {
                Some(Data::Histogram(histogram))
                    if service == "front 1.2.3" && metric.name == name =>
                {
                    Some(&histogram.data_points)
                }
                _ => None,
            });
            let mut exemplars = durations.flatten().flat_map(|point| &point.exemplars);
            exemplars.any(|exemplar| hex(&exemplar.trace_id) == trace).then_some(())
        })
        .await;
    }

    // A failure says so, with its cause; a trace that its head did not sample stays at home.
    let failed = "4bf92f3577b34da6a3ce929d0e0e4736";
    let unsampled = "11111111111111111111111111111111";
    call(back.address(), "/fails", &format!("00-{unsampled}-{parent}-00"), "500 ").await;
    call(back.address(), "/fails", &format!("00-{failed}-{parent}-01"), "500 ").await;
    let span = eventually("the failure arrives", SOON, async || {
        collector.of_trace(failed).into_values().next()
    })
    .await;
    let status = span.status.clone().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert!(status.message.contains("the disk is on fire"), "{status:?}");
    assert!(collector.of_trace(unsampled).is_empty());

    // The collector dies. Calls go on, more of them than its queue has room for.
    collecting.abort();
    assert!(collecting.await.unwrap_err().is_cancelled());
    let begun = Instant::now();
    let traceparent = format!("00-{trace}-{parent}-01");
    for _ in 0..3000 {
        call(back.address(), "/back", &traceparent, "200 OK").await;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "3000 calls took {took:?}");
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "the end waited {took:?} for a dead collector");
}

/// A GET that is answered with this status.
async fn call(address: SocketAddr, path: &str, traceparent: &str, status: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         traceparent: {traceparent}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}
