//! The use cases, through the real gRPC routes, on a database of their own.
//!
//! In process: the generated client calls the routes as a tower service, so
//! that requests are encoded, decoded and mapped as over the network.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

mod charging;
mod crashing;
mod layers;
mod refunding;
mod support;
