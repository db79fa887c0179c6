//! What everyone assembles around axum: ids, a JSON access log, metrics, traces, a timeout,
//! caught panics. The anchor of `http_usual`.

use std::time::Duration;

use axum::Router;
use axum_prometheus::PrometheusMetricLayer;
use axum_tracing_opentelemetry::middleware::{OtelAxumLayer, OtelInResponseLayer};
use http::StatusCode;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use tower_http::{
    ServiceBuilderExt as _,
    catch_panic::CatchPanicLayer,
    request_id::MakeRequestUuid,
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer},
};
use tracing::Level;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::Outcome;

/// Takes spans and forgets them.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// The router with the usual stack around it; installs the subscriber of the process.
pub(crate) fn router(router: Router) -> Outcome<Router> {
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(Nowhere).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.1))))
        .build();
    let (writer, guard) = tracing_appender::non_blocking(std::io::stdout());
    // Lives as long as the process, which ends by `exit`.
    std::mem::forget(guard);
    tracing_subscriber::registry()
        // As axum-tracing-opentelemetry asks for: without it no span of a request is made.
        .with(Targets::new().with_default(Level::INFO).with_target("otel::tracing", Level::TRACE))
        .with(tracing_subscriber::fmt::layer().json().with_writer(writer))
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("usual")))
        .try_init()?;
    let (metrics, handle) = PrometheusMetricLayer::pair();
    let stack = tower::ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .propagate_x_request_id()
        .layer(CatchPanicLayer::new())
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(30),
        ));
    Ok(router
        .layer(stack)
        .layer(metrics)
        .layer(OtelInResponseLayer)
        .layer(OtelAxumLayer::default())
        .route("/metrics", axum::routing::get(async move || handle.render())))
}
