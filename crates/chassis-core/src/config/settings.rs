//! The settings that every process has, whatever it serves.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

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
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { host: Ipv4Addr::LOCALHOST.into(), port: 9090 }
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
    /// Share of the traces begun here that are sampled, 0 to 1. Also
    /// `OTEL_TRACES_SAMPLER_ARG`.
    pub sample_ratio: f64,
    /// Where spans are sent by OTLP over gRPC, such as `http://localhost:4317`; nowhere if
    /// not set. Also `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            log_format: LogFormat::Auto,
            log_filter: "info".to_owned(),
            sample_ratio: 1.0,
            otlp_endpoint: None,
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
