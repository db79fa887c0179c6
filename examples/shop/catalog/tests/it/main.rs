//! The use cases, through the real routes, on a database of their own.
//!
//! In process: no port is opened, but requests are parsed and answers mapped
//! as over the network.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

mod documented;
mod grpc;
mod http;
mod support;
