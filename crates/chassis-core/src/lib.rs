//! Everything around a service's business code that no transport and no database owns.
//!
//! A process is a list of [`Component`]s that an [`App`] starts in order and stops in
//! reverse. What they share is an [`Env`]: who the service is, its metrics, its health, its
//! spans. What a single call carries is a [`Context`]: trace, request id, deadline, caller.
//! It travels as a task-local, so that a log line or an outgoing call three functions down
//! has it without a parameter.
//!
//! Read in this order:
//!
//! 1. [`error`]: one vocabulary of failures, two faces each.
//! 2. [`deadline`], [`trace`], [`baggage`], [`context`], [`propagation`]: what a call carries.
//! 3. [`metrics`], [`health`], [`operations`], [`env`](mod@env): what a process shows.
//! 4. [`app`], [`shutdown`]: the life of a process.
//! 5. [`config`]: settings with origins.
//! 6. [`telemetry`]: logs, and spans that leave the process.
//!
//! What this crate does not do: it speaks no protocol and opens no database. Those are
//! `chassis-http`, `chassis-grpc`, `chassis-data` and `chassis-messaging`.

pub mod app;
pub mod baggage;
pub mod config;
pub mod context;
pub mod deadline;
pub mod env;
pub mod error;
pub mod health;
pub mod metrics;
pub mod operations;
pub mod propagation;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
mod wall_clock;

pub use app::{App, Component, Plan, Ready};
pub use baggage::Baggage;
pub use config::{AdminConfig, CoreConfig, Secret};
pub use context::{Context, Priority};
pub use deadline::Deadline;
pub use env::{Env, InFlight, InFlightGuard, InFlightKind, Listener, ServiceInfo, UnixListener};
pub use error::{BoxError, Code, Error, FieldViolation, Result};
pub use health::{Health, HealthReport, Probe, Status};
pub use metrics::{Counter, Gauge, Histogram, Metrics};
pub use operations::{OperationInfo, Operations};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use trace::{Span, SpanId, SpanKind, SpanRecord, TraceContext, TraceId};
pub use wall_clock::unix_ms;

/// A boxed future that may move between threads: what object-safe async methods return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;
