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

use layer::Residents;
pub use layer::{LineSink, LogLayer};
use writer::Writer;

/// The telemetry of the process. Dropping it writes what is still buffered.
pub struct Telemetry {
    writer: Arc<Writer>,
    sink: Option<Arc<dyn SpanSink>>,
    sample_ratio: f64,
    residents: Arc<Residents>,
}

impl Telemetry {
    /// Makes this the telemetry of the whole process: log lines go to standard output.
    ///
    /// # Errors
    /// Fails if the log filter is malformed, if the sample ratio is not 0 to 1, if the
    /// endpoint is not a URL, if spans are to be exported and this is not called inside a
    /// tokio runtime, or if a `tracing` subscriber is already installed.
    pub fn install(config: &TelemetryConfig) -> Result<Telemetry> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(Error::invalid_argument(
                "SAMPLE_RATIO",
                format!("telemetry.sample_ratio is 0 to 1, not {}", config.sample_ratio),
            ));
        }
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
        let residents = Arc::<Residents>::default();
        let layer = if json {
            LogLayer::json(writer.clone())
        } else {
            LogLayer::text(writer.clone(), std::io::stdout().is_terminal())
        }
        .with_residents(residents.clone());
        tracing::subscriber::set_global_default(Registry::default().with(filter).with(layer))
            .map_err(|error| {
                Error::failed_precondition("TELEMETRY", "telemetry is already installed")
                    .with_source(error)
            })?;
        Ok(Telemetry { writer, sink, sample_ratio: config.sample_ratio, residents })
    }

    /// The environment of a service that uses this telemetry. Its metrics show how many log
    /// lines the process dropped.
    #[must_use]
    pub fn env(&self, info: ServiceInfo) -> Env {
        self.residents.add(&info);
        let env = match &self.sink {
            Some(sink) => Env::with_spans(info, sink.clone(), self.sample_ratio),
            None => Env::new(info),
        };
        env.metrics().show(
            "log_lines_dropped",
            "Log lines of the process that standard output was too slow for.",
            self.writer.dropped(),
        );
        env
    }

    /// The log alone, for code that outlives this or must not wait for a collector.
    #[must_use]
    pub fn log(&self) -> LogOutput {
        LogOutput(self.writer.clone())
    }

    /// Writes the lines that are buffered and sends the spans that wait; more may follow.
    /// Blocks the thread for at most five seconds.
    pub fn flush(&self) {
        if let Some(sink) = &self.sink {
            sink.flush();
        }
        self.writer.flush();
    }

    /// How many log lines were dropped because standard output was too slow.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.writer.dropped().get()
    }
}

/// Where log lines wait to be written. Cheap to clone.
#[derive(Clone)]
pub struct LogOutput(Arc<Writer>);

impl LogOutput {
    /// Writes the lines that are buffered. Blocks the thread for at most two seconds; needed
    /// before `std::process::exit`, which drops nothing.
    pub fn flush(&self) {
        self.0.flush();
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
    match config.otlp_endpoint.as_deref() {
        Some(endpoint) if !endpoint.is_empty() => Err(Error::failed_precondition(
            "OTLP_FEATURE",
            "telemetry.otlp_endpoint is set, but the program was built without the feature `otlp`",
        )),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_ratio_out_of_range_is_refused() {
        for sample_ratio in [-0.1, 1.1, f64::NAN] {
            let config = TelemetryConfig { sample_ratio, ..TelemetryConfig::default() };
            let error = Telemetry::install(&config).err().map(|error| error.reason().to_owned());
            assert_eq!(error.as_deref(), Some("SAMPLE_RATIO"));
        }
    }
}
