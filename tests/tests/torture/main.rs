//! The auditor against planted bugs, and the correct code in the very same scenarios.
//!
//! Each scenario forces its interleaving: by a fail point, a transaction that is held
//! open, a thread that stands still. The bugs are in the test's own relay and consumer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bad_relay;
mod invariants;
mod mark_before_publish;
mod naive_cursor;
mod no_fencing;
mod no_inbox;
mod stage;
