//! Stops a relay for a moment, with nothing in its memory.
//!
//! What is about to be published again must go before the rows that a relay holds in
//! memory, and before those that it is reading. So it is asked to stop, lands what is
//! in the air, writes its marks, and forgets the rest; it reads all of it again when it
//! may go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::parts::Parts;
use super::wake::Wake;

#[derive(Debug)]
pub(super) struct Pause {
    asked: AtomicBool,
    quiet: watch::Sender<bool>,
}

impl Pause {
    /// `asked`: the relay begins with a pause.
    pub(super) fn new(asked: bool) -> Pause {
        Pause { asked: AtomicBool::new(asked), quiet: watch::Sender::new(false) }
    }

    /// Asks the relay to stop and waits until it has, at most for `patience`.
    ///
    /// Dropping the future leaves the relay stopped.
    pub(super) async fn begin(&self, wake: &Wake, patience: Duration) {
        self.asked.store(true, Ordering::Release);
        wake.wake(Parts::ALL);
        let mut quiet = self.quiet.subscribe();
        if tokio::time::timeout(patience, quiet.wait_for(|quiet| *quiet)).await.is_err() {
            tracing::warn!("the outbox relay has not stopped in time for a replay");
        }
    }

    /// The relay goes on.
    pub(super) fn end(&self, wake: &Wake) {
        self.asked.store(false, Ordering::Release);
        wake.wake(Parts::ALL);
    }

    /// For the relay: whether it should stop.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// For the relay: it has stopped, or goes on. `true` where that is new.
    pub(super) fn tell(&self, quiet: bool) -> bool {
        self.quiet.send_replace(quiet) != quiet
    }
}
