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
//! 5. [`conditional`], [`security_headers`], [`events`] and, each with the feature of its name,
//!    `compression`, `cors`, `files`, `multipart`, `websocket`: what a server for browsers needs.
//! 6. [`admin`]: probes, metrics and the plan on a port of their own.
//! 7. `openapi`: [`Routes`] with their OpenAPI document, which the admin port shows.
//! 8. [`client`]: calls to another service, by its name.
//!
//! What it does not do: TLS in the client (a mesh does), HTTP/3.

pub mod admin;
pub mod client;
mod compression;
pub mod conditional;
mod edge;
pub mod events;
pub mod extract;
mod leaving;
mod limit;
#[cfg(feature = "multipart")]
pub mod multipart;
mod openapi;
pub mod problem;
mod security;
pub mod server;
#[cfg(feature = "validate")]
pub mod valid;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use admin::Admin;
pub use client::{CacheConfig, Client, ClientBuilder, RequestBuilder, Response};
pub use compression::CompressionConfig;
pub use edge::{REQUEST_TIMEOUT_MS, RETRY_PUSHBACK_MS};
pub use extract::{Json, Path, Query};
pub use openapi::Routes;
pub use problem::Problem;
pub use security::security_headers;
pub use server::{Server, ServerConfig};
/// Pages of other origins, by tower-http: `CorsLayer` is put on a router.
#[cfg(feature = "cors")]
pub use tower_http::cors;
/// Static files with ranges, by tower-http: `ServeDir` is nested into a router.
#[cfg(feature = "files")]
pub use tower_http::services as files;
#[cfg(feature = "validate")]
pub use valid::Valid;
