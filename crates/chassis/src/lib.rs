//! Everything a Rust service needs around its business code, under one name.
//!
//! A service is a list of components with a `main` around it. [`service!`] is the short
//! spelling, [`run`] the long one; both give the same [`App`], and a test holds them to it.
//!
//! ```no_run
//! use chassis::prelude::*;
//!
//! fn router() -> axum::Router {
//!     axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }))
//! }
//!
//! chassis::service! { http: router }
//! ```
//!
//! That service has an admin port with probes and metrics, one log line per call with its
//! trace id, deadlines, a body limit, problem+json errors, settings from a file and the
//! environment, and a shutdown that finishes what is in flight. `--help` lists its options.
//!
//! The parts are crates of their own, re-exported here by their short names: [`core`],
//! [`resilience`], [`admission`], [`discovery`], [`http`], and, each with a feature of its name that is on by
//! default, `data`, `grpc`, `messaging` and `gateway`. A service that only speaks HTTP builds in half of the
//! time without them:
//!
//! ```toml
//! chassis = { version = "0.1", default-features = false, features = ["otlp", "tls"] }
//! ```

mod cli;
mod exit;
mod probe;
mod pulse;
mod run;
mod service;

pub use chassis_admission as admission;
pub use chassis_core as core;
#[cfg(feature = "data")]
pub use chassis_data as data;
pub use chassis_discovery as discovery;
#[cfg(feature = "gateway")]
pub use chassis_gateway as gateway;
#[cfg(feature = "grpc")]
pub use chassis_grpc as grpc;
pub use chassis_http as http;
#[cfg(feature = "messaging")]
pub use chassis_messaging as messaging;
pub use chassis_resilience as resilience;

pub use chassis_core::{
    App, BoxFuture, Code, Component, Context, CoreConfig, Deadline, Env, Error, Plan, Probe, Ready,
    Result, Secret, ServiceInfo, Shutdown, service_info,
};
pub use exit::Exit;
pub use run::{DefaultConfig, base_app, run};

/// What the business code of a service uses all the time.
pub mod prelude {
    pub use crate::{App, Code, Context, Error, Result};
    pub use axum;
}

/// The README's Rust blocks compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
