//! Tells relays in which partitions rows were committed.
//!
//! A counter for each partition, so that every relay finds out by itself what is
//! new to it, however many there are and however seldom they look.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::parts::{PARTITIONS, Parts};

/// The side that tells.
#[derive(Debug)]
pub(crate) struct Wake {
    commits: [AtomicU64; PARTITIONS],
    changed: watch::Sender<()>,
}

/// The side that listens. It keeps the other side alive, so it never ends.
#[derive(Debug)]
pub(crate) struct Woken {
    wake: Arc<Wake>,
    seen: [u64; PARTITIONS],
    changed: watch::Receiver<()>,
}

impl Wake {
    pub(crate) fn new() -> Arc<Wake> {
        let commits = std::array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Wake { commits, changed: watch::Sender::new(()) })
    }

    /// There is something in these partitions.
    pub(crate) fn wake(&self, parts: Parts) {
        for (part, commits) in (0..).zip(&self.commits) {
            if parts.contains(part) {
                commits.fetch_add(1, Ordering::Release);
            }
        }
        self.changed.send_replace(());
    }

    /// Listens from now on.
    pub(crate) fn listen(self: &Arc<Self>) -> Woken {
        let changed = self.changed.subscribe();
        let mut woken = Woken { wake: self.clone(), seen: [0; PARTITIONS], changed };
        woken.take();
        woken
    }
}

impl Woken {
    /// Waits for something new. Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The partitions that have something new since the last time.
    pub(crate) fn take(&mut self) -> Parts {
        let mut parts = Parts::NONE;
        for ((part, commits), seen) in (0..).zip(&self.wake.commits).zip(&mut self.seen) {
            let now = commits.load(Ordering::Acquire);
            if std::mem::replace(seen, now) != now {
                parts.insert(part);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_listener_hears_of_each_partition_once() {
        let wake = Wake::new();
        let (mut one, mut two) = (wake.listen(), wake.listen());
        wake.wake([3].into_iter().collect());
        wake.wake([3, 5].into_iter().collect());
        one.changed().await;
        assert_eq!(one.take().iter().collect::<Vec<_>>(), [3, 5]);
        assert!(one.take().is_empty());
        wake.wake([7].into_iter().collect());
        two.changed().await;
        assert_eq!(two.take().iter().collect::<Vec<_>>(), [3, 5, 7]);
    }
}
