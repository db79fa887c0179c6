//! gRPC server and client with the chassis stack on.
//!
//! tonic gives messages, services and HTTP/2. This crate gives what every call
//! needs around it, so that a handler is only its business: deadlines in and out,
//! one trace across processes, errors that are the same on both sides, retries
//! that are safe and bounded, a circuit breaker for each endpoint, health from
//! the one registry of the process, metrics by method, one access-log line a
//! call, and a shutdown that drains.
//!
//! - [`Server`]: a component that takes [`Services`]: tonic's `Routes`, with their descriptors.
//! - [`Channel`]: what a generated client is built on; it calls a service by name.
//! - [`or_else`], [`or_last_good`] and [`or_later`]: something less in place of an answer.
//! - [`IntoStatus`] and [`from_status`]: errors to statuses, and back.
//!
//! A handler ends with `map_err(IntoStatus::into_status)`, a caller with
//! `map_err(from_status)`.

mod call;
mod client;
mod server;
mod status;
mod timeout;

pub use client::{Channel, ChannelBuilder, Idempotent, LongLived, or_else, or_last_good, or_later};
pub use server::{GrpcCompressionConfig, InProcess, Server, ServerConfig, Services};
pub use status::{IntoStatus, from_status};
