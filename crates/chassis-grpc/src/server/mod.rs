//! The serving side: a component that takes tonic's routes.
//!
//! tonic's own server is not used, only its routes and services. It cannot stop
//! waiting at a deadline, and it reads `grpc-timeout` outside of our call, where
//! nobody could log what happened. What stands around a call here is one fused
//! service (`call`) instead of a layer per concern: each layer costs a future
//! and a look-up per call, and together they cost more than most handlers.

mod call;
mod component;
mod config;
mod connections;
mod descriptors;
mod health;
mod layers;
mod request;
#[cfg(feature = "web")]
mod web;

pub use component::{InProcess, Server, Services};
pub use config::{GrpcCompressionConfig, ServerConfig};
