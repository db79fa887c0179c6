//! What the helpers promise to the tests that use them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fault_proxy;
