//! Sends spans to a collector by OTLP, over gRPC or HTTP.
//!
//! One thread of its own, with a runtime of its own, serves all services of the process: the
//! requests' runtime may be blocked, or over, while the last spans still have to leave. The
//! queue is bounded and drops when it is full, so a collector that is down or hangs costs the
//! memory of one queue, and nothing else. What cannot be sent is tried again by the rules of
//! OTLP (three times, with backoff, what the collector calls retryable), then dropped.
//!
//! Not the batch processor of the SDK: it needs a thread for each service, since the resource
//! (name and version) belongs to the processor, and it keeps its count of what it dropped to
//! itself.
//!
//! The exporter itself reads `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT` (10 s) and
//! `OTEL_RESOURCE_ATTRIBUTES`, also in their forms for traces.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{
        Link, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState,
    },
};
use opentelemetry_otlp::{
    Protocol, SpanExporter, WithExportConfig, WithHttpConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::ResourceBuilder,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use rustls::ClientConfig;
use tokio::runtime;

use super::{
    batch::{Batch, Limits},
    collector,
};
use crate::{
    Counter, Error, Result, SpanKind, SpanRecord, TraceContext,
    config::{OtlpProtocol, TelemetryConfig},
    trace::SpanSink,
};

/// How long the spans of all services together may take to leave in a flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one batch may take with all its retries; the default of `OTEL_BSP_EXPORT_TIMEOUT`.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Services that may have an exporter: more in one process is a mistake.
pub(super) const MAX_SERVICES: usize = 100;

pub(super) struct OtlpSink {
    spans: Batch<SpanRecord>,
    dropped: Counter,
}

impl OtlpSink {
    pub(super) fn new(endpoint: &str, config: &TelemetryConfig) -> Result<Arc<OtlpSink>> {
        let limits = Limits {
            tick: config.span_delay,
            high_water: config.span_batch,
            most: config.span_queue,
        };
        let sink = Arc::new(OtlpSink { spans: Batch::new(limits), dropped: Counter::default() });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| cannot_export().with_source(error))?;
        let collector = Collector {
            endpoint: full_endpoint(endpoint, config.otlp_protocol)?,
            way: Way::new(endpoint, config)?,
            batch: config.span_batch,
            scope: InstrumentationScope::builder("chassis")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            exporters: BTreeMap::new(),
            is_failing: false,
        };
        {
            // A malformed endpoint is found at the start, not at the first span.
            let _inside = runtime.enter();
            collector.exporter()?;
        }
        let thread = {
            let sink = Arc::downgrade(&sink);
            move || {
                let mut collector = collector;
                let mut taken = Vec::new();
                while let Some(sink) = sink.upgrade() {
                    sink.spans.turn(&mut taken, |spans| {
                        let spans = spans.drain(..);
                        let dropped = runtime.block_on(collector.send(spans));
                        sink.dropped.add(dropped);
                    });
                }
            }
        };
        std::thread::Builder::new()
            .name("span-exporter".to_owned())
            .spawn(thread)
            .map_err(|error| cannot_export().with_source(error))?;
        Ok(sink)
    }

    /// Spans that found no room, or that the collector did not take.
    pub(super) fn dropped(&self) -> &Counter {
        &self.dropped
    }
}

impl SpanSink for OtlpSink {
    fn export(&self, span: SpanRecord) {
        if !self.spans.add(1, |spans| spans.push(span)) {
            self.dropped.inc();
        }
    }

    fn flush(&self) {
        if !self.spans.flush(FLUSH_TIMEOUT) {
            tracing::warn!("not all spans were exported within {FLUSH_TIMEOUT:?}");
        }
    }
}

fn cannot_export() -> Error {
    Error::failed_precondition("TELEMETRY", "the thread that exports spans cannot be started")
}

fn full_endpoint(endpoint: &str, protocol: OtlpProtocol) -> Result<String> {
    if protocol == OtlpProtocol::Grpc {
        return Ok(endpoint.to_owned());
    }
    if !has_scheme(endpoint) {
        return Err(malformed(endpoint).with_source("it begins with http:// or https://"));
    }
    Ok(with_path(endpoint, "/v1/traces"))
}

/// Whether HTTP can be spoken to it.
pub(super) fn has_scheme(endpoint: &str) -> bool {
    endpoint.starts_with("http://") || endpoint.starts_with("https://")
}

/// OTLP over HTTP posts each signal to a path of its own (OTLP specification, endpoint URLs).
pub(super) fn with_path(endpoint: &str, path: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") }
}

/// Who a service is, with what `OTEL_RESOURCE_ATTRIBUTES` says.
pub(super) fn resource(name: &str, version: &str) -> ResourceBuilder {
    Resource::builder()
        .with_service_name(name.to_owned())
        .with_attribute(KeyValue::new("service.version", version.to_owned()))
}

fn malformed(endpoint: &str) -> Error {
    Error::invalid_argument(
        "OTLP_ENDPOINT",
        format!("telemetry.otlp_endpoint `{endpoint}` cannot be used"),
    )
}

/// How the collector is spoken to, the same for each service.
#[derive(Clone)]
enum Way {
    Grpc(Option<ClientTlsConfig>),
    Http(ClientConfig),
}

impl Way {
    fn new(endpoint: &str, config: &TelemetryConfig) -> Result<Way> {
        let certificate = config.otlp_certificate.as_deref();
        Ok(match config.otlp_protocol {
            OtlpProtocol::Grpc => Way::Grpc(collector::grpc_tls(endpoint, certificate)?),
            OtlpProtocol::HttpProtobuf => Way::Http(collector::http_tls(endpoint, certificate)?),
        })
    }
}

/// The collector as the thread sees it.
struct Collector {
    endpoint: String,
    way: Way,
    batch: usize,
    scope: InstrumentationScope,
    /// One for each service: the resource belongs to the exporter.
    exporters: BTreeMap<Cow<'static, str>, SpanExporter>,
    /// So that a collector that is down is one warning and not one for each batch.
    is_failing: bool,
}

impl Collector {
    fn exporter(&self) -> Result<SpanExporter> {
        let endpoint = &self.endpoint;
        let built = match self.way.clone() {
            Way::Grpc(tls) => {
                let builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
                match tls {
                    Some(tls) => builder.with_tls_config(tls).build(),
                    None => builder.build(),
                }
            }
            Way::Http(tls) => SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(endpoint)
                .with_http_client(collector::http_client(tls, collector::timeout("TRACES")))
                .build(),
        };
        built.map_err(|error| malformed(endpoint).with_source(error))
    }

    /// Sends spans, those of each service by themselves and all services at once, so that a
    /// silent collector does not add up. Says how many it could not send.
    async fn send(&mut self, spans: impl Iterator<Item = SpanRecord>) -> u64 {
        let mut by_service: BTreeMap<Cow<'static, str>, Vec<SpanData>> = BTreeMap::new();
        let mut dropped = 0;
        for span in spans {
            if let Err(error) = self.ensure(&span) {
                dropped += 1;
                self.report(Err(error.chain()));
                continue;
            }
            by_service
                .entry(span.service.clone())
                .or_default()
                .push(convert(span, self.scope.clone()));
        }
        let (exporters, batch) = (&self.exporters, self.batch);
        let sent = by_service.into_iter().filter_map(|(service, spans)| {
            let exporter = exporters.get(&service)?;
            Some(async move {
                let mut results = Vec::new();
                let mut spans = spans.into_iter().peekable();
                while spans.peek().is_some() {
                    let some: Vec<SpanData> = spans.by_ref().take(batch).collect();
                    let count = some.len() as u64;
                    results.push((count, export(exporter, some).await));
                }
                results
            })
        });
        for (count, result) in join_all(sent).await.into_iter().flatten() {
            if result.is_err() {
                dropped += count;
            }
            self.report(result);
        }
        dropped
    }

    /// Sees to an exporter for the service that made this span.
    fn ensure(&mut self, span: &SpanRecord) -> Result<()> {
        if self.exporters.contains_key(&span.service) {
            return Ok(());
        }
        if self.exporters.len() >= MAX_SERVICES {
            return Err(Error::failed_precondition(
                "TELEMETRY",
                "too many services in one process export spans",
            ));
        }
        let mut exporter = self.exporter()?;
        exporter.set_resource(&resource(&span.service, &span.version).build());
        self.exporters.insert(span.service.clone(), exporter);
        Ok(())
    }

    fn report(&mut self, result: Result<(), String>) {
        match (result, self.is_failing) {
            (Err(error), false) => tracing::warn!(
                error,
                "spans cannot be exported; they are dropped until the collector takes them"
            ),
            (Ok(()), true) => tracing::info!("spans are exported again"),
            (Err(_), true) => return,
            (Ok(()), false) => return,
        }
        self.is_failing = !self.is_failing;
    }
}

async fn export(exporter: &SpanExporter, spans: Vec<SpanData>) -> Result<(), String> {
    match tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(spans)).await {
        Ok(result) => OTelSdkResult::map_err(result, |error| error.to_string()),
        Err(_) => Err(format!("the collector did not answer within {EXPORT_TIMEOUT:?}")),
    }
}

fn convert(span: SpanRecord, instrumentation_scope: InstrumentationScope) -> SpanData {
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(|link| Link::with_context(context(link))).collect();
    SpanData {
        span_context: context(&span.trace),
        parent_span_id: span
            .trace
            .parent
            .map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_bytes())),
        parent_span_is_remote: matches!(span.kind, SpanKind::Server | SpanKind::Consumer),
        span_kind: match span.kind {
            SpanKind::Internal => OtelKind::Internal,
            SpanKind::Server => OtelKind::Server,
            SpanKind::Client => OtelKind::Client,
            SpanKind::Producer => OtelKind::Producer,
            SpanKind::Consumer => OtelKind::Consumer,
        },
        name: span.name,
        start_time: span.start,
        end_time: span.start + span.duration,
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, value)| KeyValue::new(key, value))
            .collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope,
    }
}

fn context(trace: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id.to_bytes()),
        SpanId::from_bytes(trace.span_id.to_bytes()),
        if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        false,
        TraceState::NONE,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{Context, Env, ServiceInfo, Span};

    fn sink(endpoint: &str, change: impl FnOnce(&mut TelemetryConfig)) -> Arc<OtlpSink> {
        let mut config = TelemetryConfig::default();
        change(&mut config);
        OtlpSink::new(endpoint, &config).unwrap()
    }

    /// Takes connections, and says nothing.
    fn silent() -> (String, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (format!("http://{}", listener.local_addr().unwrap()), listener)
    }

    fn span(sink: &Arc<OtlpSink>, service: &'static str) {
        let env = Env::with_spans(ServiceInfo::new(service, "1"), sink.clone(), 1.0);
        drop(Span::start(&Context::background(&env), SpanKind::Server, "x"));
    }

    #[test]
    fn a_flush_of_many_services_waits_once_for_a_silent_collector() {
        let (endpoint, _listener) = silent();
        let sink = sink(&endpoint, |_| {});
        for service in ["a", "b", "c", "d", "e"] {
            span(&sink, service);
        }
        let begun = tokio::time::Instant::now();
        sink.flush();
        assert!(begun.elapsed() < 2 * FLUSH_TIMEOUT, "{:?}", begun.elapsed());
    }

    #[test]
    fn what_a_refusing_collector_costs_is_counted_drops() {
        // A closed port refuses at once, and is not tried again for ever.
        let (endpoint, listener) = silent();
        drop(listener);
        let sink = sink(&endpoint, |_| {});
        for count in 1..=3 {
            span(&sink, "a");
            assert!(sink.spans.flush(EXPORT_TIMEOUT));
            assert_eq!(sink.dropped().get(), count);
        }
    }

    #[test]
    fn a_silent_collector_fills_one_queue_and_no_more() {
        let (endpoint, _listener) = silent();
        let sink = sink(&endpoint, |config| (config.span_queue, config.span_batch) = (10, 5));
        for _ in 0..100 {
            span(&sink, "a");
        }
        // The thread holds one queue of them at most, the queue another.
        assert!(sink.dropped().get() >= 80, "{}", sink.dropped().get());
    }

    #[test]
    fn over_http_a_collector_gets_protobuf_at_the_path_of_traces() {
        let (endpoint, listener) = silent();
        let sink = sink(&endpoint, |config| config.otlp_protocol = OtlpProtocol::HttpProtobuf);
        span(&sink, "items");
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut some = [0; 1024];
            // The body is small and comes with its head or right after it.
            while !seen.windows(5).any(|bytes| bytes == b"items") {
                let count = stream.read(&mut some).unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&some[..count]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&seen).into_owned()
        });
        assert!(sink.spans.flush(EXPORT_TIMEOUT));
        assert_eq!(sink.dropped().get(), 0);
        let seen = collector.join().unwrap();
        assert!(seen.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("content-type: application/x-protobuf\r\n"), "{seen}");
    }

    #[test]
    fn over_http_the_path_of_traces_is_added_once() {
        let http = |endpoint| full_endpoint(endpoint, OtlpProtocol::HttpProtobuf);
        for given in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(http(given).unwrap(), "http://c:4318/v1/traces");
        }
        assert_eq!(http("http://c/otel").unwrap(), "http://c/otel/v1/traces");
        assert_eq!(http("https://c").unwrap(), "https://c/v1/traces");
        assert_eq!(http("c:4318").unwrap_err().reason(), "OTLP_ENDPOINT");
        let grpc = full_endpoint("http://c:4317", OtlpProtocol::Grpc).unwrap();
        assert_eq!(grpc, "http://c:4317");
    }

    #[test]
    fn a_malformed_endpoint_is_found_at_the_start() {
        let error = OtlpSink::new("not a url", &TelemetryConfig::default()).err().unwrap();
        assert_eq!(error.reason(), "OTLP_ENDPOINT");
    }
}
