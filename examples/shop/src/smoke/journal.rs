//! What the journey prints: one line per step, with its time.

use std::future::Future;

use chassis::Result;
use tokio::time::Instant;

use super::broken;
use crate::terminal::say;

/// Prints one line per step.
#[derive(Default)]
pub(super) struct Journal {
    count: u32,
}

impl Journal {
    /// Runs a step and prints how it went.
    pub(super) async fn step<T>(
        &mut self,
        name: &str,
        step: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = step.await;
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        say(format_args!("  {verdict:<7}{:>8.2}s  {name}", started.elapsed().as_secs_f64()));
        self.count += 1;
        outcome.map_err(|error| broken(format!("step `{name}`")).with_source(error))
    }

    /// How many steps there were.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}
