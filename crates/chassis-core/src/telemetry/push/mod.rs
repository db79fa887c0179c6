//! Pushes metrics to a collector by OTLP over HTTP, for where nobody scrapes.
//!
//! What is pushed is what `/metrics` shows at that moment, read back from its text: there is one
//! way to count, and the figures of the process come along. Sums are cumulative, so a push that
//! is lost is made good by the next one: no queue and no retry, and a collector that is down or
//! hangs costs nothing but that.
//!
//! Not the SDK's meter: counting twice would cost each call, and its exporter takes nothing that
//! it did not count itself.

mod openmetrics;
mod points;

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use opentelemetry::KeyValue;
use opentelemetry_http::HttpClient;
use opentelemetry_proto::{
    tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        common::v1::InstrumentationScope,
        metrics::v1::{Metric, ResourceMetrics, ScopeMetrics},
        resource::v1::Resource,
    },
    transform::common::tonic::ResourceAttributesWithSchema,
};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use tokio::runtime::{self, Handle, Runtime};

use super::{
    collector::{http_client, http_tls, timeout, variable},
    otlp::{MAX_SERVICES, has_scheme, resource, with_path},
};
use crate::{Counter, Error, Metrics, Result, ServiceInfo, config::TelemetryConfig};

/// How long the last push may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// As it is called in the variables of OpenTelemetry.
const SIGNAL: &str = "METRICS";
/// Data points in one request: with the widest histograms still far from the 4 MiB that a
/// collector takes by default.
const MAX_POINTS: usize = 2_000;

/// Pushes until it is dropped.
pub(super) struct Push {
    sources: Arc<Mutex<Vec<Source>>>,
    flush: mpsc::Sender<SyncSender<()>>,
    failed: Counter,
}

/// A service whose metrics are pushed.
struct Source {
    resource: Resource,
    metrics: Metrics,
    /// That whose figures are shown: it is not that of the thread which pushes.
    runtime: Option<Handle>,
}

impl Push {
    pub(super) fn new(endpoint: &str, config: &TelemetryConfig) -> Result<Push> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| cannot_push().with_source(error))?;
        let sender = Sender::new(endpoint, config)?;
        let (flush, asked) = mpsc::channel::<SyncSender<()>>();
        let (sources, failed) = (Arc::default(), Counter::default());
        let mut pusher = Pusher {
            sources: Arc::clone(&sources),
            failed: failed.clone(),
            sender,
            start: SystemTime::now(),
            is_failing: false,
        };
        let interval = config.metrics_interval;
        let thread = move || loop {
            let done = match asked.recv_timeout(interval) {
                Ok(done) => Some(done),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            pusher.push(&runtime);
            if let Some(done) = done {
                // Whoever asked may have gone.
                let _ = done.try_send(());
            }
        };
        std::thread::Builder::new()
            .name("metrics-push".to_owned())
            .spawn(thread)
            .map_err(|error| cannot_push().with_source(error))?;
        Ok(Push { sources, flush, failed })
    }

    /// Pushes the metrics of this service as well, with the figures of the runtime that this is
    /// called on.
    pub(super) fn add(&self, info: &ServiceInfo, metrics: &Metrics) {
        let mut sources = self.sources.lock();
        if sources.len() >= MAX_SERVICES {
            tracing::error!("too many services in one process push metrics");
            return;
        }
        let who = resource(&info.name, &info.version)
            // Two instances of one name would be one series that jumps.
            .with_attribute(KeyValue::new("service.instance.id", info.instance.clone()))
            .build();
        let attributes = ResourceAttributesWithSchema::from(&who).attributes.0;
        sources.push(Source {
            resource: Resource { attributes, ..Resource::default() },
            metrics: metrics.clone(),
            runtime: Handle::try_current().ok(),
        });
    }

    /// Pushes that the collector did not take.
    pub(super) fn failed(&self) -> &Counter {
        &self.failed
    }

    /// Pushes once more. Blocks the thread for at most three seconds.
    pub(super) fn flush(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        let asked = self.flush.send(done).is_ok();
        if asked && is_done.recv_timeout(FLUSH_TIMEOUT).is_err() {
            tracing::warn!("the last metrics were not pushed within {FLUSH_TIMEOUT:?}");
        }
    }
}

fn cannot_push() -> Error {
    Error::failed_precondition("TELEMETRY", "the thread that pushes metrics cannot be started")
}

/// What the thread has.
struct Pusher {
    sources: Arc<Mutex<Vec<Source>>>,
    failed: Counter,
    sender: Sender,
    start: SystemTime,
    /// So that a collector that is down is one warning and not one for each push.
    is_failing: bool,
}

impl Pusher {
    fn push(&mut self, runtime: &Runtime) {
        let texts: Vec<(Resource, String)> = self
            .sources
            .lock()
            .iter()
            .map(|source| {
                let _inside = source.runtime.as_ref().map(Handle::enter);
                (source.resource.clone(), source.metrics.encode())
            })
            .collect();
        let result = runtime.block_on(async {
            for (resource, text) in &texts {
                for request in requests(resource, text, self.start) {
                    self.sender.send(request).await?;
                }
            }
            Ok(())
        });
        if result.is_err() {
            self.failed.inc();
        }
        self.report(result);
    }

    fn report(&mut self, result: Result<(), String>) {
        match (result, self.is_failing) {
            (Err(error), false) => {
                tracing::warn!(error, "metrics cannot be pushed; the next push has all of them");
            }
            (Ok(()), true) => tracing::info!("metrics are pushed again"),
            _ => return,
        }
        self.is_failing = !self.is_failing;
    }
}

/// The metrics of one service, in requests of a bounded size.
fn requests(
    resource: &Resource,
    text: &str,
    start: SystemTime,
) -> Vec<ExportMetricsServiceRequest> {
    let span = points::Span::until_now(start);
    let mut requests: Vec<(usize, Vec<Metric>)> = Vec::new();
    for family in &openmetrics::families(text) {
        // A histogram's lines are more than its points: an estimate that errs to the safe side.
        let count = family.samples.len();
        let metrics = points::metrics(family, span, MAX_POINTS);
        match requests.last_mut() {
            Some((points, some)) if *points + count <= MAX_POINTS => {
                *points += count;
                some.extend(metrics);
            }
            _ => requests.push((count, metrics)),
        }
    }
    let scope = InstrumentationScope {
        name: "chassis".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let request = |metrics| ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope.clone()),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    requests.into_iter().map(|(_, metrics)| request(metrics)).collect()
}

/// The way to the collector: OTLP over HTTP, for a client of gRPC is no matter of this crate.
struct Sender {
    client: Box<dyn HttpClient>,
    url: String,
    headers: HeaderMap,
}

impl Sender {
    fn new(endpoint: &str, config: &TelemetryConfig) -> Result<Sender> {
        const KEY: &str = "telemetry.otlp_metrics_endpoint";
        let malformed = |error: String| {
            Error::invalid_argument("OTLP_ENDPOINT", format!("{KEY} `{endpoint}` cannot be used"))
                .with_source(error)
        };
        if !has_scheme(endpoint) {
            return Err(malformed("it begins with http:// or https://".to_owned()));
        }
        let url = with_path(endpoint, "/v1/metrics");
        let _: http::Uri = url.parse().map_err(|error| malformed(format!("{error}")))?;
        let certificate = config.otlp_certificate.as_deref();
        let client = http_client(http_tls(endpoint, certificate)?, timeout(SIGNAL));
        Ok(Sender { client: Box::new(client), url, headers: headers()? })
    }

    async fn send(&self, metrics: ExportMetricsServiceRequest) -> Result<(), String> {
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Bytes::from(metrics.encode_to_vec()))
            .map_err(|error| error.to_string())?;
        request.headers_mut().extend(self.headers.clone());
        let answer = self.client.send_bytes(request).await.map_err(|error| error.to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the collector answered {status}")),
        }
    }
}

/// `OTEL_EXPORTER_OTLP_HEADERS`, `key=value` in a list, with percent-encoded values.
fn headers() -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let text = variable(SIGNAL, "HEADERS").unwrap_or_default();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // Not the pair itself in the message: it may be a key to the collector.
        let malformed =
            || Error::invalid_argument("OTLP_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS is malformed");
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| malformed())?;
        let name: HeaderName = name.trim().parse().map_err(|_| malformed())?;
        headers.insert(name, HeaderValue::from_str(&value).map_err(|_| malformed())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn push(endpoint: &str) -> Push {
        let config = TelemetryConfig {
            metrics_interval: Duration::from_secs(3600),
            ..TelemetryConfig::default()
        };
        let push = Push::new(endpoint, &config).unwrap();
        let metrics = Metrics::default();
        metrics.counter("calls", "Calls.", &[("route", "/a")]).add(3);
        push.add(&ServiceInfo::new("items", "1.2.3"), &metrics);
        push
    }

    /// The head and the body of a request that announces its length.
    fn request(mut stream: &TcpStream) -> (String, Vec<u8>) {
        let (mut seen, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut some).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&some[..count]);
            let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8(seen[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            if seen.len() >= end + 4 + length {
                return (head, seen[end + 4..].to_vec());
            }
        }
    }

    #[test]
    fn over_http_a_collector_gets_the_metrics_of_each_service() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let push = push(&format!("http://{}", listener.local_addr().unwrap()));
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = request(&stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            request
        });
        push.flush();
        let (head, body) = collector.join().unwrap();
        assert!(head.starts_with("POST /v1/metrics HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
        let of_service = &request.resource_metrics[0];
        let attributes = &of_service.resource.as_ref().unwrap().attributes;
        for key in ["service.name", "service.version", "service.instance.id"] {
            assert!(attributes.iter().any(|attribute| attribute.key == key), "{attributes:?}");
        }
        assert_eq!(of_service.scope_metrics[0].metrics[0].name, "calls");
        assert_eq!(push.failed().get(), 0);
    }

    #[test]
    fn a_collector_that_refuses_or_is_gone_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let push = push(&format!("http://{}", listener.local_addr().unwrap()));
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            request(&stream);
            stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        push.flush();
        collector.join().unwrap();
        assert_eq!(push.failed().get(), 1);
        push.flush();
        assert_eq!(push.failed().get(), 2, "its port is closed now");
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_found_at_the_start() {
        for endpoint in ["not a url", "ftp://collector", "https://not a url"] {
            let error = Push::new(endpoint, &TelemetryConfig::default()).err().unwrap();
            assert_eq!(error.reason(), "OTLP_ENDPOINT", "{endpoint}");
            assert!(error.message().contains("telemetry.otlp_metrics_endpoint"), "{error}");
        }
    }

    #[test]
    fn a_large_service_is_told_in_requests_of_a_bounded_size() {
        let metrics = Metrics::default();
        for name in ["a", "b", "c", "d", "e"] {
            for n in 0..900 {
                metrics.counter(name, "Calls.", &[("n", &n.to_string())]).inc();
            }
        }
        let text = metrics.encode();
        let requests = requests(&Resource::default(), &text, SystemTime::now());
        let counts: Vec<usize> = requests
            .iter()
            .map(|request| request.resource_metrics[0].scope_metrics[0].metrics.len())
            .collect();
        assert_eq!(counts, [2, 2, 1]);
    }
}
