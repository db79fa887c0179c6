//! The worker as a whole: messages in, one parcel and one message out.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failing;
mod packing;
mod support;
