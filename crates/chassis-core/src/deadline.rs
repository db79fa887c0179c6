//! A point in time after which nobody waits for the answer any more.
//!
//! Absolute inside the process, so that it needs no bookkeeping on the way down; each
//! transport writes the remaining time on the wire, so that clocks need not agree. It only
//! ever shrinks: a callee may give up earlier than its caller, never later.

use std::{future::Future, time::Duration};

use futures_util::TryFutureExt;
use tokio::time::Instant;

use crate::{Error, Result};

/// Longest deadline that is representable here, about 30 years: longer ones are cut to it.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// An absolute deadline on tokio's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `time` from now.
    #[must_use]
    pub fn after(time: Duration) -> Deadline {
        Deadline::after_start(Instant::now(), time)
    }

    /// The deadline that lies `time` behind this instant.
    #[must_use]
    pub fn after_start(start: Instant, time: Duration) -> Deadline {
        Deadline(start + time.min(FAR))
    }

    /// The deadline at this instant.
    #[must_use]
    pub fn at(instant: Instant) -> Deadline {
        Deadline(instant)
    }

    /// When it is.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time that is left; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Deadline) -> Deadline {
        Ord::min(self, other)
    }

    /// Fails with `DEADLINE_EXCEEDED` once it has passed.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`](crate::Code::DeadlineExceeded), marked as not sent: whoever
    /// checks first has not begun.
    pub fn check(self) -> Result<()> {
        if self.is_expired() { Err(Deadline::exceeded().not_sent()) } else { Ok(()) }
    }

    /// Runs a future until the deadline. Dropping this future drops the inner one.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`](crate::Code::DeadlineExceeded) when the time ran out; the
    /// work may have happened all the same.
    pub fn run<F: Future>(self, future: F) -> impl Future<Output = Result<F::Output>> {
        // No async block, which would have room for the future twice.
        tokio::time::timeout_at(self.0, future).map_err(|_| Deadline::exceeded())
    }

    /// What [`run`](Deadline::run) fails with, for whoever watches the time in another way.
    #[must_use]
    pub fn exceeded() -> Error {
        Error::deadline_exceeded("DEADLINE_EXCEEDED", "the deadline of the call has passed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_on_the_paused_clock() {
        let deadline = Deadline::after(Duration::from_secs(2));
        assert!(deadline.check().is_ok());
        let done = deadline.run(tokio::time::sleep(Duration::from_secs(1))).await;
        assert!(done.is_ok());
        let late = deadline.run(tokio::time::sleep(Duration::from_secs(9))).await;
        assert_eq!(late.map_err(|e| e.code()), Err(crate::Code::DeadlineExceeded));
        assert!(deadline.is_expired());
        assert!(deadline.check().is_err_and(|e| e.was_not_sent()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_time_does_not_overflow() {
        assert!(!Deadline::after(Duration::MAX).is_expired());
    }
}
