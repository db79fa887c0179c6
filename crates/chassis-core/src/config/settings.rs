//! The settings that every process has, whatever it serves.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::SocketConfig;
use crate::{Error, Result};

/// What every process can set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreConfig {
    /// Who the service is.
    pub service: ServiceConfig,
    /// The port for probes, metrics and the like.
    pub admin: AdminConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
}

/// Who the service is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceConfig {
    /// Overrides the name that the code gives the service. Also `OTEL_SERVICE_NAME`.
    pub name: Option<String>,
}

/// The admin port: probes, metrics, plan. Loopback by default, since it has no login.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// A Unix socket or one of systemd's in place of host and port.
    pub socket: SocketConfig,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 9090,
            socket: SocketConfig::default(),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Logs and traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TelemetryConfig {
    /// How log lines look: `auto`, `json` or `text`.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`, such as `info,chassis_http=debug`. Also
    /// `RUST_LOG`.
    pub log_filter: String,
    /// Warnings and errors that one place in the code may write in a second; what comes
    /// after is counted and left out. The access log is not limited. 0 for no limit.
    pub log_repeat_limit: u32,
    /// Fields whose values are hidden in log lines and spans, by the last part of their name,
    /// in any case.
    pub log_redact: Vec<String>,
    /// Share of the traces begun here that are sampled, 0 to 1. Also
    /// `OTEL_TRACES_SAMPLER_ARG`.
    pub sample_ratio: f64,
    /// Where spans are sent by OTLP, such as `http://localhost:4317`, or with `https://`
    /// by TLS; nowhere if not set. Over HTTP, `/v1/traces` is added where it is missing. Also `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<String>,
    /// How spans are sent: `grpc` (usually port 4317) or `http/protobuf` (4318). Also
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub otlp_protocol: OtlpProtocol,
    /// File with the certificates that a collector behind `https://` is trusted by, in PEM; those
    /// that the system trusts if not set. Also `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub otlp_certificate: Option<PathBuf>,
    /// Spans that may wait to be sent; what comes after is dropped and counted. 1 to 1000000.
    /// Also `OTEL_BSP_MAX_QUEUE_SIZE`.
    pub span_queue: usize,
    /// Spans that are sent at once; as many waiting are sent without delay. 1 to
    /// `span_queue`. Also `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub span_batch: usize,
    /// How long a span waits for others at most. 1ms to 5m. Also `OTEL_BSP_SCHEDULE_DELAY`,
    /// in milliseconds.
    #[serde(with = "super::duration")]
    pub span_delay: Duration,
    /// Where metrics are pushed by OTLP over HTTP, such as `http://localhost:4318`; nowhere if not
    /// set, for they can be scraped. `/v1/metrics` is added where it is missing. Also
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.
    pub otlp_metrics_endpoint: Option<String>,
    /// How often metrics are pushed. 1s to 1h. Also `OTEL_METRIC_EXPORT_INTERVAL`, in
    /// milliseconds.
    #[serde(with = "super::duration")]
    pub metrics_interval: Duration,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// Protobuf over gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP/1.1.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl TelemetryConfig {
    /// Checks every number.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |reason: &'static str, key: &str, allowed: &str, value: &dyn Display| {
            let message = format!("telemetry.{key} is {allowed}, not {value}");
            Err(Error::invalid_argument(reason, message))
        };
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return wrong("SAMPLE_RATIO", "sample_ratio", "0 to 1", &self.sample_ratio);
        }
        if !(1..=1_000_000).contains(&self.span_queue) {
            return wrong("INVALID_CONFIG", "span_queue", "1 to 1000000", &self.span_queue);
        }
        if !(1..=self.span_queue).contains(&self.span_batch) {
            return wrong("INVALID_CONFIG", "span_batch", "1 to span_queue", &self.span_batch);
        }
        let delays = Duration::from_millis(1)..=Duration::from_secs(300);
        if !delays.contains(&self.span_delay) {
            let given = humantime::format_duration(self.span_delay);
            return wrong("INVALID_CONFIG", "span_delay", "1ms to 5m", &given);
        }
        let intervals = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !intervals.contains(&self.metrics_interval) {
            let given = humantime::format_duration(self.metrics_interval);
            return wrong("INVALID_CONFIG", "metrics_interval", "1s to 1h", &given);
        }
        Ok(())
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            log_format: LogFormat::Auto,
            log_filter: "info".to_owned(),
            // As many as zap writes of one message in a second by default.
            log_repeat_limit: 100,
            log_redact: ["password", "secret", "token", "authorization", "cookie", "api_key"]
                .map(str::to_owned)
                .to_vec(),
            sample_ratio: 1.0,
            otlp_endpoint: None,
            otlp_protocol: OtlpProtocol::Grpc,
            otlp_certificate: None,
            // The defaults of the OpenTelemetry specification.
            span_queue: 2048,
            span_batch: 512,
            span_delay: Duration::from_secs(5),
            otlp_metrics_endpoint: None,
            metrics_interval: Duration::from_secs(60),
        }
    }
}

/// How the process ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ShutdownConfig {
    /// Time between "not ready" and the stop of the servers, so that load balancers learn of
    /// it. Kubernetes wants a few seconds; on one machine none is needed.
    #[serde(with = "super::duration")]
    pub delay: Duration,
    /// Time for everything to stop, the delay included. Keep it below the grace period of
    /// the orchestrator, which is 30 s for Kubernetes and 10 s for Docker.
    #[serde(with = "super::duration")]
    pub timeout: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        ShutdownConfig { delay: Duration::ZERO, timeout: Duration::from_secs(25) }
    }
}
