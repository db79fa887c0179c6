//! The edge as a whole: its real routes on a real socket, in front of services that do as
//! they are told.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod composing;
mod fakes;
mod forwarding;
mod support;
