//! `shop` as the person who typed it meets it: what it prints, when it ends, with which code.
//!
//! Each test runs the real program, on free ports and a folder of its own.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod refusing;
mod running;
mod support;
