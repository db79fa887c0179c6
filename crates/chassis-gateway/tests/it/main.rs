//! The gateway before real services on loopback.
#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

mod compose;
mod forward;
mod support;
