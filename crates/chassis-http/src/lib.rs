//! HTTP with the chassis on: a server around an axum router, and a client by service name.
//!
//! A service writes axum handlers. What stands around them is here: sockets that cannot be
//! held for ever, a drain with a deadline, one layer that gives every request its trace, its
//! deadline, its log line and its metrics, and errors that are problem+json on the wire and
//! [`chassis_core::Error`] on both sides of it.
//!
//! Read in this order:
//!
//! 1. [`problem`]: an error as a caller sees it.
//! 2. [`extract`]: `Json`, `Path` and `Query` that name the wrong field; with the feature
//!    `validate`, `Valid` that names each field that breaks a rule.
//! 3. `edge`: what happens around every request, in one layer.
//! 4. [`server`]: sockets, connections, drain.
//! 5. [`admin`]: probes, metrics and the plan on a port of their own.
//! 6. [`client`]: calls to another service, by its name.
//!
//! What it does not do: TLS (a mesh or an ingress ends it), HTTP/3, web sockets.

pub mod admin;
pub mod client;
mod edge;
pub mod extract;
mod limit;
pub mod problem;
pub mod server;
#[cfg(feature = "validate")]
pub mod valid;

pub use admin::Admin;
pub use client::{CacheConfig, Client, ClientBuilder, RequestBuilder, Response};
pub use edge::{REQUEST_TIMEOUT_MS, RETRY_PUSHBACK_MS};
pub use extract::{Json, Path, Query};
pub use problem::Problem;
pub use server::{Server, ServerConfig};
#[cfg(feature = "validate")]
pub use valid::Valid;
