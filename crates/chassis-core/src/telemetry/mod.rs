//! Logs, and spans that leave the process.
//!
//! `tracing` is what users write against. Its events become one line each, JSON or text,
//! with the ids of the ambient [`Context`](crate::Context), so that a line of an unsampled
//! call can be found by its trace id too. Lines go through a bounded buffer that a thread
//! empties on a tick or at a high-water mark: waking it for each line would cost more than
//! the line. Spans that leave the process are [`SpanRecord`](crate::SpanRecord)s, made at
//! the edges of a call; with the feature `otlp` they are sent to a collector.
//!
//! A subscriber is per process; the services that share one keep their names in every line.

mod format;
mod layer;
#[cfg(feature = "otlp")]
mod otlp;
mod writer;

use std::{io::IsTerminal, sync::Arc};

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt};

use crate::{
    Env, Error, Result, ServiceInfo,
    config::{LogFormat, TelemetryConfig},
    trace::SpanSink,
};

pub use layer::{LineSink, LogLayer};
use writer::Writer;

/// The telemetry of the process. Dropping it writes what is still buffered.
pub struct Telemetry {
    writer: Arc<Writer>,
    sink: Option<Arc<dyn SpanSink>>,
    sample_ratio: f64,
}

impl Telemetry {
    /// Makes this the telemetry of the whole process: log lines go to standard output.
    ///
    /// Must be called inside a tokio runtime where spans are exported.
    ///
    /// # Errors
    /// Fails if the log filter is malformed, if the endpoint is not a URL, or if a `tracing`
    /// subscriber is already installed.
    pub fn install(config: &TelemetryConfig) -> Result<Telemetry> {
        let json = match config.log_format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !std::io::stdout().is_terminal(),
        };
        let filter = EnvFilter::try_new(&config.log_filter).map_err(|error| {
            Error::invalid_argument(
                "LOG_FILTER",
                format!("telemetry.log_filter `{}` is malformed: {error}", config.log_filter),
            )
        })?;
        let sink = span_sink(config)?;
        let writer = Writer::stdout();
        let layer = if json {
            LogLayer::json(writer.clone())
        } else {
            LogLayer::text(writer.clone(), std::io::stdout().is_terminal())
        };
        tracing::subscriber::set_global_default(Registry::default().with(filter).with(layer))
            .map_err(|error| {
                Error::failed_precondition("TELEMETRY", "telemetry is already installed")
                    .with_source(error)
            })?;
        Ok(Telemetry { writer, sink, sample_ratio: config.sample_ratio })
    }

    /// The environment of a service that uses this telemetry.
    #[must_use]
    pub fn env(&self, info: ServiceInfo) -> Env {
        match &self.sink {
            Some(sink) => Env::with_spans(info, sink.clone(), self.sample_ratio),
            None => Env::new(info),
        }
    }

    /// Writes what is buffered and sends the spans that wait. Blocks for at most a few
    /// seconds.
    pub fn flush(&self) {
        if let Some(sink) = &self.sink {
            sink.flush();
        }
        self.writer.flush();
    }

    /// How many log lines were dropped because standard output was too slow.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.writer.dropped()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(feature = "otlp")]
fn span_sink(config: &TelemetryConfig) -> Result<Option<Arc<dyn SpanSink>>> {
    let sink = |endpoint: &String| {
        otlp::OtlpSink::new(endpoint).map(|sink| Arc::new(sink) as Arc<dyn SpanSink>)
    };
    config.otlp_endpoint.as_ref().filter(|endpoint| !endpoint.is_empty()).map(sink).transpose()
}

#[cfg(not(feature = "otlp"))]
fn span_sink(config: &TelemetryConfig) -> Result<Option<Arc<dyn SpanSink>>> {
    match &config.otlp_endpoint {
        Some(_) => Err(Error::failed_precondition(
            "OTLP_FEATURE",
            "telemetry.otlp_endpoint is set, but the program was built without the feature `otlp`",
        )),
        None => Ok(None),
    }
}
