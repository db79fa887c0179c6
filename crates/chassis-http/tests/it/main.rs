//! The server and the client on loopback, over real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

mod admin;
mod admission;
mod allocations;
mod calls;
mod connecting;
mod connections;
mod drain;
mod held_back;
mod kept;
mod limits;
mod log;
mod refusals;
mod requests;
mod support;
mod web;
mod websockets;
