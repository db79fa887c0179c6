//! The question "who serves this target now?", answered with complete sets.
//!
//! Level-triggered: each answer is the whole set, never a difference, so a
//! reader that misses ten answers and sees the eleventh knows all there is to
//! know. A source that fails says nothing, and so the last good set stays.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Endpoint, Target};

type Set = Option<Arc<[Endpoint]>>;

/// A source of endpoints.
pub trait Resolver: Send + Sync + 'static {
    /// Begins to watch a target. Called inside a tokio runtime. The same target
    /// may be watched many times; an implementation shares the work.
    fn watch(&self, target: &Target) -> Updates;
}

/// The reading end: the newest complete set of endpoints of one target.
#[derive(Clone, Debug)]
pub struct Updates {
    receiver: watch::Receiver<Set>,
}

impl Updates {
    /// A pair for who writes a [`Resolver`]. Until the first
    /// [`publish`](Feed::publish) the set is unknown, which is not the same as
    /// empty: a client may wait for it.
    pub fn channel() -> (Feed, Updates) {
        let (sender, receiver) = watch::channel(None);
        (Feed { sender }, Updates { receiver })
    }

    /// A set that never changes.
    pub fn fixed(endpoints: impl IntoIterator<Item = Endpoint>) -> Updates {
        let (feed, updates) = Updates::channel();
        feed.publish(endpoints);
        updates
    }

    /// The last good set; empty if none is known yet.
    pub fn current(&self) -> Arc<[Endpoint]> {
        self.receiver.borrow().clone().unwrap_or_default()
    }

    /// Whether the source has answered at least once.
    pub fn is_known(&self) -> bool {
        self.receiver.borrow().is_some()
    }

    /// Waits for a set that this handle has not seen, and returns it. Pends for
    /// ever once the source is gone: the last set is then final.
    ///
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Arc<[Endpoint]> {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.receiver.borrow_and_update().clone().unwrap_or_default()
    }

    /// Waits until the source has answered once; returns at once if it has, or
    /// if it is gone and never will.
    ///
    /// Dropping the future loses nothing.
    pub async fn known(&mut self) {
        // An error means that the source is gone: nothing more to wait for.
        let _ = self.receiver.wait_for(Option::is_some).await;
    }

    /// The newest set if this handle has not seen it yet.
    pub(crate) fn take_change(&mut self) -> Set {
        let newest = self.receiver.borrow_and_update();
        newest.has_changed().then(|| newest.clone()).flatten()
    }

    /// Makes the present set count as not yet seen.
    pub(crate) fn mark_unseen(&mut self) {
        self.receiver.mark_changed();
    }
}

/// The writing end of [`Updates`].
#[derive(Debug)]
pub struct Feed {
    sender: watch::Sender<Set>,
}

impl Feed {
    /// Replaces the set. Sequence and repetitions do not matter; a set equal to
    /// the present one wakes nobody. Where an address is given twice, the
    /// greatest weight stands.
    pub fn publish(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let mut set: Vec<Endpoint> = endpoints.into_iter().collect();
        set.sort_by_key(|endpoint| (endpoint.address, std::cmp::Reverse(endpoint.weight)));
        set.dedup_by_key(|endpoint| endpoint.address);
        self.sender.send_if_modified(|present| {
            let changed = present.as_deref() != Some(&set[..]);
            if changed {
                *present = Some(set.into());
            }
            changed
        });
    }

    /// Another reading end of the same set.
    pub fn subscribe(&self) -> Updates {
        Updates { receiver: self.sender.subscribe() }
    }

    /// Waits until nobody reads any more: time for a background task to end.
    ///
    /// Dropping the future loses nothing.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    #[tokio::test]
    async fn the_set_is_complete_sorted_and_without_repetitions() {
        let (feed, mut updates) = Updates::channel();
        assert!(!updates.is_known());
        feed.publish([endpoint(2), endpoint(1).with_weight(3), endpoint(1)]);
        assert_eq!(&updates.changed().await[..], &[endpoint(1).with_weight(3), endpoint(2)]);
        assert!(updates.is_known());
    }

    #[tokio::test(start_paused = true)]
    async fn an_equal_set_wakes_nobody() {
        let (feed, mut updates) = Updates::channel();
        feed.publish([endpoint(1), endpoint(2)]);
        updates.changed().await;
        feed.publish([endpoint(2), endpoint(1)]);
        let waited =
            tokio::time::timeout(std::time::Duration::from_secs(60), updates.changed()).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_set_outlives_its_source() {
        let (feed, mut updates) = Updates::channel();
        feed.publish([endpoint(1)]);
        drop(feed);
        assert_eq!(&updates.current()[..], &[endpoint(1)]);
        assert_eq!(&updates.changed().await[..], &[endpoint(1)]);
        let waited =
            tokio::time::timeout(std::time::Duration::from_secs(60), updates.changed()).await;
        assert!(waited.is_err());
    }
}
