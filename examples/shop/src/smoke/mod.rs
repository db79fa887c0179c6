//! The journey: one customer after another against a fresh shop, from outside.
//!
//! The shop runs as a child process, so that it can be killed in the middle of its work and
//! asked to stop like any other. Everything is seen over HTTP and in the log, as a user and
//! an operator would see it. Each step prints one line; the first that does not hold prints
//! what was expected and what came, and where the log is.

pub(crate) mod client;
pub(crate) mod customers;
mod journal;
mod journey;
mod process;

use chassis::{Error, Result, core::TraceContext};

use self::{client::Client, journal::Journal};
use tokio::runtime::Runtime;

use crate::{cli::Options, terminal::say};

/// Runs the journey.
///
/// # Errors
/// The first step that does not hold.
pub fn main(options: &Options) -> Result<()> {
    runtime()?.block_on(journey::run(options))
}

/// What customers do, against a shop that runs already, on whatever machines.
///
/// # Errors
/// The first step that does not hold.
pub fn visit(gateway: &str) -> Result<()> {
    runtime()?.block_on(async {
        say(format_args!("The customers' journey, at {gateway}"));
        let mut journal = Journal::default();
        let (client, trace) = (Client::new(gateway), TraceContext::root(true));
        customers::visit(&mut journal, &client, &trace).await?;
        say(format_args!("all {} steps hold", journal.count()));
        Ok(())
    })
}

pub(crate) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::internal)
}

/// A step that does not hold.
fn broken(what: impl Into<String>) -> Error {
    Error::failed_precondition("SMOKE", what.into())
}
