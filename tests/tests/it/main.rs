//! What crosses crates and needs no server: one binary, one file per behaviour.
//!
//! One binary links once; a test file that is a target of its own would link
//! the whole workspace again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bad_input;
mod collector;
mod documented;
mod full;
mod handed_over;
mod hello;
mod lifecycle;
mod one_port;
mod overload;
mod process;
mod propagation;
mod resilience;
mod resilience_upstreams;
mod rolling;
mod service;
mod tail;
mod tidy;
mod unix_sockets;
mod wire;
