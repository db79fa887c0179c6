//! Sends spans to a collector by OTLP over gRPC.
//!
//! Each service of the process has its own batch processor, because the resource (its name
//! and version) belongs to the processor. The processor's queue is bounded and drops when it
//! is full, so a collector that is down costs memory for one queue and nothing else.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

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

use crate::{Error, Result, SpanKind, SpanRecord, TraceContext, trace::SpanSink};

/// How long the last spans may take to leave at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct OtlpSink {
    endpoint: String,
    scope: InstrumentationScope,
    processors: Mutex<BTreeMap<Cow<'static, str>, BatchSpanProcessor>>,
}

impl OtlpSink {
    pub(super) fn new(endpoint: &str) -> Result<OtlpSink> {
        let sink = OtlpSink {
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

    fn processor(&self, service: &str) -> Result<BatchSpanProcessor> {
        let mut processor = BatchSpanProcessor::builder(self.exporter()?).build();
        processor.set_resource(&Resource::builder().with_service_name(service.to_owned()).build());
        Ok(processor)
    }
}

impl SpanSink for OtlpSink {
    fn export(&self, span: SpanRecord) {
        let mut processors = self.processors.lock();
        if !processors.contains_key(&span.service) {
            match self.processor(&span.service) {
                Ok(processor) => {
                    processors.insert(span.service.clone(), processor);
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "a span was not exported");
                    return;
                }
            }
        }
        if let Some(processor) = processors.get(&span.service) {
            processor.on_end(convert(span, self.scope.clone()));
        }
    }

    fn flush(&self) {
        for processor in self.processors.lock().values() {
            if let Err(error) = processor.shutdown_with_timeout(FLUSH_TIMEOUT) {
                tracing::warn!(%error, "not all spans were exported");
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
