//! Where a source puts its answers: through [`LastGood`] into the feed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::last_good::LastGood;
use crate::{Endpoint, Feed, Target};

/// The writing end for one target.
pub(crate) struct Sink {
    target: Target,
    feed: Feed,
    good: Mutex<LastGood>,
    /// The time of the next forgetting may have changed.
    changed: Notify,
    /// Whether a set came since the last look.
    answered: AtomicBool,
}

impl Sink {
    pub(crate) fn new(target: Target, feed: Feed, grace: Duration) -> Sink {
        Sink {
            target,
            feed,
            good: Mutex::new(LastGood::new(grace)),
            changed: Notify::new(),
            answered: AtomicBool::new(false),
        }
    }

    /// The source gave a complete set.
    pub(crate) fn publish(&self, set: impl IntoIterator<Item = Endpoint>) {
        let mut good = self.good.lock();
        if good.is_failing() {
            tracing::info!(sought = %self.target, "discovery answers again");
        }
        good.answered(set, Instant::now());
        // Under the lock: an older set must not come later.
        self.feed.publish(good.set());
        drop(good);
        self.answered.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether a set was published since this was asked last.
    pub(crate) fn take_answered(&self) -> bool {
        self.answered.swap(false, Ordering::Relaxed)
    }

    /// The source does not answer.
    pub(crate) fn failed(&self) {
        self.good.lock().failed();
        self.feed.failed(Instant::now());
        self.changed.notify_one();
    }

    /// Forgets in time what a source that came back no longer names; runs until
    /// nobody reads any more.
    pub(crate) async fn forget(&self) {
        loop {
            let until = self.good.lock().until();
            tokio::select! {
                () = self.feed.closed() => return,
                () = self.changed.notified() => {}
                () = sleep_until(until) => {
                    let mut good = self.good.lock();
                    good.passed(Instant::now());
                    // Nothing is forgotten while the source fails, so this does not
                    // make a failing one look well.
                    if !good.is_failing() {
                        self.feed.publish(good.set());
                    }
                }
            }
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
