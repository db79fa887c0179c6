//! Settings from defaults, a file and the environment, each with its origin.
//!
//! A settings struct is plain serde with a [`Default`]; it needs no derive of ours. The
//! defaults, serialised, are the list of known keys and their types, so that an unknown key
//! is refused with the nearest known one, and a text from the environment is read as the
//! type that its key has. Later sources win: defaults, then the file, then the environment.
//!
//! | in the file | in the environment | from a mounted secret |
//! |---|---|---|
//! | `[http]` `port = 8080` | `HTTP__PORT=8080` | `HTTP__PORT_FILE=/run/…` |
//! | `[database]` `url = "…"` | `DATABASE__URL`, `DATABASE_URL` | `DATABASE_URL_FILE` |
//!
//! In the environment a list is written `a,b,c`; an empty text unsets an optional key; a key
//! with hyphens is written with underscores, `MAX_SIZE` for `max-size`, but a name of the
//! user's own, such as that of a called service, is taken as it stands, in lower case. A
//! variable that names no section of the settings is not ours and is left alone. A key that
//! chooses, such as the `profile` of a client, moves the [defaults](preset) of its section;
//! what any source sets there wins over it.
//!
//! Names of others, all taken as not set where they are empty:
//!
//! | name | what it does |
//! |---|---|
//! | `DATABASE_URL`, `NATS_URL`, `RUST_LOG` | sets `database.url`, `broker.url`, `telemetry.log_filter` |
//! | `OTEL_SERVICE_NAME` | sets `service.name` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | sets `telemetry.otlp_endpoint`; the second wins |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_CERTIFICATE`, and both with `TRACES_` | sets `telemetry.otlp_protocol`, `telemetry.otlp_certificate` |
//! | `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, `OTEL_METRIC_EXPORT_INTERVAL` | sets `telemetry.otlp_metrics_endpoint`, `telemetry.metrics_interval` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` | sets `telemetry.span_queue`, `telemetry.span_batch`, `telemetry.span_delay` |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | sets `telemetry.sample_ratio`; every sampler follows the parent's decision, also without `parentbased_` |
//! | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none`, `OTEL_METRICS_EXPORTER=none` | nothing, no spans, no metrics leave the process |
//! | `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT` | read by the exporters themselves; a `service.name` among the attributes names nothing |
//! | `services__NAME__PROTOCOL__0` | nothing here: where a service is, read by `chassis-discovery` |
//!
//! Left out: `OTEL_PROPAGATORS` (always W3C), and all names for logs, which do not leave by OTLP.

pub mod duration;
mod environment;
mod file;
mod loader;
pub mod preset;
mod secret;
mod settings;
mod socket;
#[cfg(test)]
mod tests;
mod tree;

pub use loader::{ConfigError, Entry, Loaded, Loader, Settings};
pub use secret::Secret;
pub use settings::{
    AdminConfig, CoreConfig, LogFormat, OtlpProtocol, ServiceConfig, ShutdownConfig,
    TelemetryConfig,
};
pub use socket::SocketConfig;
