//! Each step of the tutorial, started as the reader starts it and asked what the page asks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod service;
mod steps;
