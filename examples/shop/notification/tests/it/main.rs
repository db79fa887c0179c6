//! The read model as a whole: messages in, news out over HTTP.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod documented;
mod support;
mod telling;
