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
//! `NATS_URL` sets `broker.url`; of the `OTEL_*` names, the service name, the OTLP endpoint
//! and the sampler are understood. A variable that names no section of the settings is not
//! ours and is left alone.

pub mod duration;
mod loader;
mod secret;
mod settings;
mod tree;

pub use loader::{ConfigError, Entry, Loaded, Loader, Settings};
pub use secret::Secret;
pub use settings::{
    AdminConfig, CoreConfig, LogFormat, ServiceConfig, ShutdownConfig, TelemetryConfig,
};
