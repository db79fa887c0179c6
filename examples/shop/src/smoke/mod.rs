//! The journey: one customer after another against a fresh shop, from outside.
//!
//! The shop runs as a child process, so that it can be killed in the middle of its work and
//! asked to stop like any other. Everything is seen over HTTP and in the log, as a user and
//! an operator would see it. Each step prints one line; the first that does not hold prints
//! what was expected and what came, and where the log is.

mod client;
mod journey;
mod process;

use chassis::{Error, Result};

use crate::cli::Options;

/// Runs the journey.
///
/// # Errors
/// The first step that does not hold.
pub fn main(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::internal)?
        .block_on(journey::run(options))
}

/// A step that does not hold.
fn broken(what: impl Into<String>) -> Error {
    Error::failed_precondition("SMOKE", what.into())
}
