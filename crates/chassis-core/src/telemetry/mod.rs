//! Logs, and spans that leave the process.
//!
//! `tracing` is what users write against. Its events become one line each, JSON or text,
//! with the ids of the ambient [`Context`](crate::Context), so that a line of an unsampled
//! call can be found by its trace id too. Lines go through a bounded buffer that a thread
//! empties on a tick or at a high-water mark: waking it for each line would cost more than
//! the line. Spans that leave the process are [`SpanRecord`](crate::SpanRecord)s, made at
//! the edges of a call and of the spans that users write; with the feature `otlp` they are
//! sent to a collector.
//!
//! A subscriber is per process; the services that share one keep their names in every line.

mod batch;
mod callsite;
#[cfg(feature = "otlp")]
mod collector;
mod filter;
mod format;
mod json;
mod layer;
#[cfg(feature = "otlp")]
mod otlp;
mod process;
#[cfg(feature = "otlp")]
mod push;
mod redact;
mod repeats;
mod spans;
mod writer;

use std::{io::IsTerminal, sync::Arc};

use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::{
    Counter, Env, Error, Result, ServiceInfo,
    config::{LogFormat, TelemetryConfig},
    trace::SpanSink,
};

use filter::LogFilter;
use layer::Residents;
pub use layer::{LineSink, LogLayer};
pub(crate) use process::ProcessCollector;
use redact::Redact;
use repeats::Repeats;
use spans::SpanLayer;
pub(crate) use spans::entered;
use writer::Writer;

/// The target of access lines, one for each call.
const ACCESS_LOG: &str = "access";

/// The telemetry of the process. Dropping it writes what is still buffered.
pub struct Telemetry {
    writer: Arc<Writer>,
    spans: Option<SpanExport>,
    #[cfg(feature = "otlp")]
    push: Option<push::Push>,
    sample_ratio: f64,
    residents: Arc<Residents>,
    filter: Arc<LogFilter>,
    repeats: Arc<Repeats>,
}

impl Telemetry {
    /// Makes this the telemetry of the whole process: log lines go to standard output.
    ///
    /// # Errors
    /// Fails if the log filter is malformed, if the sample ratio is not 0 to 1, if the
    /// endpoint is not a URL, if a limit of the span queue is out of range, or if a `tracing`
    /// subscriber is already installed.
    pub fn install(config: &TelemetryConfig) -> Result<Telemetry> {
        config.validate()?;
        let json = match config.log_format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !std::io::stdout().is_terminal(),
        };
        let (filter, filter_layer) = LogFilter::new(&config.log_filter)?;
        let spans = span_export(config)?;
        #[cfg(feature = "otlp")]
        let push = metrics_push(config)?;
        #[cfg(not(feature = "otlp"))]
        no_otlp("otlp_metrics_endpoint", config.otlp_metrics_endpoint.as_deref())?;
        let writer = Writer::stdout();
        let residents = Arc::<Residents>::default();
        let repeats = Arc::new(Repeats::new(config.log_repeat_limit));
        let redact = Arc::new(Redact::new(&config.log_redact));
        let layer = if json {
            LogLayer::json(writer.clone())
        } else {
            LogLayer::text(writer.clone(), std::io::stdout().is_terminal())
        }
        .with_residents(residents.clone())
        .with_repeats(repeats.clone())
        .with_redact(redact.clone());
        let span_layer = spans.as_ref().map(|_| SpanLayer::new(redact));
        let subscriber = Registry::default().with(filter_layer).with(span_layer).with(layer);
        tracing::subscriber::set_global_default(subscriber).map_err(|error| {
            Error::failed_precondition("TELEMETRY", "telemetry is already installed")
                .with_source(error)
        })?;
        let sample_ratio = config.sample_ratio;
        Ok(Telemetry {
            writer,
            spans,
            #[cfg(feature = "otlp")]
            push,
            sample_ratio,
            residents,
            filter,
            repeats,
        })
    }

    /// The environment of a service that uses this telemetry. Its metrics show what the
    /// process uses up and how many log lines it dropped; its operations let the log filter
    /// be changed for a while.
    #[must_use]
    pub fn env(&self, info: ServiceInfo) -> Env {
        self.residents.add(&info);
        let env = match &self.spans {
            Some(spans) => Env::with_spans(info, spans.sink.clone(), self.sample_ratio),
            None => Env::new(info),
        };
        if let Some(spans) = &self.spans {
            env.metrics().show(
                "spans_dropped",
                "Sampled spans of the process that the collector was too slow for or refused.",
                &spans.dropped,
            );
        }
        env.metrics().show(
            "log_lines_dropped",
            "Log lines of the process that standard output was too slow for.",
            self.writer.dropped(),
        );
        env.metrics().show(
            "log_lines_left_out",
            "Warnings and errors of the process that repeated too often to be written.",
            self.repeats.left_out(),
        );
        env.metrics().show_process();
        #[cfg(feature = "otlp")]
        if let Some(push) = &self.push {
            env.metrics().show(
                "metrics_pushes_failed",
                "Pushes of the process's metrics that the collector did not take.",
                push.failed(),
            );
            push.add(env.info(), env.metrics());
        }
        self.filter.offer(env.operations());
        env
    }

    /// The log alone, for code that outlives this or must not wait for a collector.
    #[must_use]
    pub fn log(&self) -> LogOutput {
        LogOutput(self.writer.clone())
    }

    /// Writes the lines that are buffered, sends the spans that wait and pushes the metrics once
    /// more; more may follow. Blocks the thread for at most eight seconds.
    pub fn flush(&self) {
        if let Some(spans) = &self.spans {
            spans.sink.flush();
        }
        #[cfg(feature = "otlp")]
        if let Some(push) = &self.push {
            push.flush();
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

/// Where spans go, and how many did not get there.
struct SpanExport {
    sink: Arc<dyn SpanSink>,
    dropped: Counter,
}

#[cfg(feature = "otlp")]
fn span_export(config: &TelemetryConfig) -> Result<Option<SpanExport>> {
    let Some(endpoint) = config.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let sink = otlp::OtlpSink::new(endpoint, config)?;
    Ok(Some(SpanExport { dropped: sink.dropped().clone(), sink }))
}

#[cfg(feature = "otlp")]
fn metrics_push(config: &TelemetryConfig) -> Result<Option<push::Push>> {
    let endpoint = config.otlp_metrics_endpoint.as_deref().filter(|url| !url.is_empty());
    endpoint.map(|endpoint| push::Push::new(endpoint, config)).transpose()
}

#[cfg(not(feature = "otlp"))]
fn span_export(config: &TelemetryConfig) -> Result<Option<SpanExport>> {
    no_otlp("otlp_endpoint", config.otlp_endpoint.as_deref())?;
    Ok(None)
}

#[cfg(not(feature = "otlp"))]
fn no_otlp(key: &str, endpoint: Option<&str>) -> Result<()> {
    if endpoint.is_none_or(str::is_empty) {
        return Ok(());
    }
    let built = "is set, but the program was built without the feature `otlp`";
    Err(Error::failed_precondition("OTLP_FEATURE", format!("telemetry.{key} {built}")))
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
