//! The server and the client on loopback, over real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

mod admin;
mod calls;
mod connections;
mod drain;
mod log;
mod refusals;
mod requests;
mod support;
