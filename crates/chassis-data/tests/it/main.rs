//! What the crate promises, shown on SQLite.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancellation;
mod connecting;
mod migrations;
mod support;
mod tokens;
mod transactions;
mod values;
