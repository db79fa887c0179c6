//! Sends spans to a collector by OTLP over gRPC.
//!
//! Each service of the process has its own batch processor, because the resource (its name
//! and version) belongs to the processor. The processor's queue is bounded and drops when it
//! is full, so a collector that is down costs memory for one queue and nothing else.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{
        Link, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor},
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{Deadline, Error, Result, SpanKind, SpanRecord, TraceContext, trace::SpanSink};

/// How long the spans of all services together may take to leave in a flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct OtlpSink {
    endpoint: String,
    scope: InstrumentationScope,
    /// The exporter's connection lives here; a span may end on a thread of no runtime.
    runtime: Handle,
    processors: Mutex<BTreeMap<Cow<'static, str>, Arc<BatchSpanProcessor>>>,
}

impl OtlpSink {
    pub(super) fn new(endpoint: &str) -> Result<OtlpSink> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::failed_precondition("TELEMETRY", "exporting spans needs a tokio runtime")
                .with_source(error)
        })?;
        let sink = OtlpSink {
            runtime,
            endpoint: endpoint.to_owned(),
            scope: InstrumentationScope::builder("chassis")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            processors: Mutex::default(),
        };
        sink.exporter()?; // a malformed endpoint is found at the start, not at the first span
        Ok(sink)
    }

    fn exporter(&self) -> Result<SpanExporter> {
        let _inside = self.runtime.enter();
        SpanExporter::builder().with_tonic().with_endpoint(&self.endpoint).build().map_err(
            |error| {
                Error::invalid_argument(
                    "OTLP_ENDPOINT",
                    format!("telemetry.otlp_endpoint `{}` cannot be used", self.endpoint),
                )
                .with_source(error)
            },
        )
    }

    /// The processor of the service that made this span.
    fn processor(&self, span: &SpanRecord) -> Result<Arc<BatchSpanProcessor>> {
        let mut processors = self.processors.lock();
        if let Some(processor) = processors.get(&span.service) {
            return Ok(processor.clone());
        }
        let resource = Resource::builder()
            .with_service_name(span.service.clone())
            .with_attribute(KeyValue::new("service.version", span.version.clone()))
            .build();
        let mut processor = BatchSpanProcessor::builder(self.exporter()?).build();
        processor.set_resource(&resource);
        let processor = Arc::new(processor);
        processors.insert(span.service.clone(), processor.clone());
        Ok(processor)
    }
}

impl SpanSink for OtlpSink {
    fn export(&self, span: SpanRecord) {
        match self.processor(&span) {
            Ok(processor) => processor.on_end(convert(span, self.scope.clone())),
            Err(error) => tracing::warn!(error = error.chain(), "a span was not exported"),
        }
    }

    /// All services at once, and without the lock: a collector that does not answer must
    /// neither add up nor hold up the spans that still end.
    fn flush(&self) {
        let processors: Vec<_> = self.processors.lock().values().cloned().collect();
        let (sender, results) = mpsc::channel();
        let mut waiting = 0;
        for processor in processors {
            let sender = sender.clone();
            let flush = move || {
                // Nobody listens any more once the time is up.
                let _ = sender.send(processor.force_flush());
            };
            let thread = std::thread::Builder::new().name("span-flush".to_owned()).spawn(flush);
            waiting += usize::from(thread.is_ok());
        }
        let deadline = Deadline::after(FLUSH_TIMEOUT);
        for _ in 0..waiting {
            match results.recv_timeout(deadline.remaining()) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "not all spans were exported"),
                Err(_) => {
                    tracing::warn!("not all spans were exported within {FLUSH_TIMEOUT:?}");
                    return;
                }
            }
        }
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
    use super::*;
    use crate::{Context, Env, ServiceInfo, Span};

    /// Reads and says nothing.
    async fn silent() -> (String, tokio::net::TcpListener) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        (format!("http://{}", listener.local_addr().unwrap()), listener)
    }

    fn span(sink: &Arc<OtlpSink>, service: &'static str) {
        let env = Env::with_spans(ServiceInfo::new(service, "1"), sink.clone(), 1.0);
        drop(Span::start(&Context::background(&env), SpanKind::Server, "x"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_flush_of_many_services_waits_once_for_a_silent_collector() {
        let (endpoint, _listener) = silent().await;
        let sink = Arc::new(OtlpSink::new(&endpoint).unwrap());
        for service in ["a", "b", "c", "d", "e"] {
            span(&sink, service);
        }
        let begun = tokio::time::Instant::now();
        sink.flush();
        assert!(begun.elapsed() < 2 * FLUSH_TIMEOUT, "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn spans_go_on_after_a_flush() {
        // A closed port refuses at once: the flush says so each time, for it tried each time.
        let (endpoint, listener) = silent().await;
        drop(listener);
        let sink = Arc::new(OtlpSink::new(&endpoint).unwrap());
        span(&sink, "a");
        sink.flush();
        span(&sink, "a");
        let processor = sink.processors.lock()["a"].clone();
        let result = processor.force_flush();
        assert!(
            !matches!(
                result,
                Ok(()) | Err(opentelemetry_sdk::error::OTelSdkError::AlreadyShutdown)
            ),
            "{result:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_span_may_end_on_a_thread_of_no_runtime() {
        let (endpoint, _listener) = silent().await;
        let sink = Arc::new(OtlpSink::new(&endpoint).unwrap());
        let elsewhere = sink.clone();
        std::thread::spawn(move || span(&elsewhere, "a")).join().unwrap();
        assert_eq!(sink.processors.lock().len(), 1);
    }

    #[test]
    fn without_a_runtime_it_is_refused() {
        let error = OtlpSink::new("http://127.0.0.1:1").err().unwrap();
        assert_eq!(error.reason(), "TELEMETRY");
    }
}
