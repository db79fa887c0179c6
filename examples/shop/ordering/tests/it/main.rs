//! The service as a whole: its real routes on a real socket, its checkout against services
//! that do as they are told, its own database and broker.
//!
//! The called services are fakes that keep what they promise (a repeated call with the same
//! key happens once) and fail on demand. What is asserted at the end is what they hold.

// Helpers beside the tests; a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checkout;
mod crashing;
mod documented;
mod failing;
mod fakes;
mod parcels;
mod placing;
mod refusing;
mod secrecy;
mod support;
