//! The question "who serves this target now?", answered with complete sets.
//!
//! Level-triggered: each answer is the whole set, never a difference, so a
//! reader that misses ten answers and sees the eleventh knows all there is to
//! know. A source that fails says nothing about the endpoints, and so the last
//! good set stays; that it fails is known too, and for how long.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::{Endpoint, Selector, Target};

/// How many endpoints a set holds at most. More are cut off, from the greatest
/// address down: a registry gone wild must not fill memory.
pub const MAX_ENDPOINTS: usize = 10_000;

type Set = Option<Arc<[Endpoint]>>;

/// A source of endpoints.
pub trait Resolver: Send + Sync + 'static {
    /// Begins to watch a target. Called inside a tokio runtime. The same target
    /// may be watched many times; an implementation shares the work. It need not
    /// look at the target's selector: [`Discovery`](crate::Discovery) does.
    fn watch(&self, target: &Target) -> Updates;
}

/// The reading end: the newest complete set of endpoints of one target.
#[derive(Clone, Debug)]
pub struct Updates {
    receiver: watch::Receiver<Set>,
    /// Since when the source fails, while it does.
    failing: Arc<Mutex<Option<Instant>>>,
    wanted: Arc<Notify>,
    selector: Selector,
}

impl Updates {
    /// A pair for who writes a [`Resolver`]. Until the first
    /// [`publish`](Feed::publish) the set is unknown, which is not the same as
    /// empty: a client may wait for it.
    pub fn channel() -> (Feed, Updates) {
        let feed = Feed {
            sender: watch::Sender::new(None),
            failing: Arc::default(),
            wanted: Arc::default(),
        };
        let updates = feed.subscribe();
        (feed, updates)
    }

    /// A set that never changes.
    pub fn fixed(endpoints: impl IntoIterator<Item = Endpoint>) -> Updates {
        let (feed, updates) = Updates::channel();
        feed.publish(endpoints);
        updates
    }

    /// The same updates, but only the endpoints that are selected.
    pub fn select(mut self, selector: &Selector) -> Updates {
        self.selector = self.selector.and(selector);
        self
    }

    /// The last good set; empty if none is known yet.
    pub fn current(&self) -> Arc<[Endpoint]> {
        let newest = self.receiver.borrow().clone();
        self.selected(newest.unwrap_or_default())
    }

    /// Whether the source has answered at least once.
    pub fn is_known(&self) -> bool {
        self.receiver.borrow().is_some()
    }

    /// For how long the source has failed, so that the set may be out of date;
    /// none while it answers.
    pub fn stale_for(&self, now: Instant) -> Option<Duration> {
        self.failing.lock().map(|since| now.saturating_duration_since(since))
    }

    /// Waits for a set that this handle has not seen, and returns it. Pends for
    /// ever once the source is gone: the last set is then final.
    ///
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Arc<[Endpoint]> {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let newest = self.receiver.borrow_and_update().clone();
        self.selected(newest.unwrap_or_default())
    }

    /// Waits until the source has answered once; returns at once if it has, or
    /// if it is gone and never will.
    ///
    /// Dropping the future loses nothing.
    pub async fn known(&mut self) {
        // An error means that the source is gone: nothing more to wait for.
        let _ = self.receiver.wait_for(Option::is_some).await;
    }

    /// Says that the set seems to be out of date, as when an endpoint of it cannot be reached.
    /// A source that asks (DNS) asks again soon, as often as its own bounds allow; one that is
    /// told of changes goes on as before.
    pub fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// What [`refresh`](Updates::refresh) does, without keeping the source at work.
    pub(crate) fn refresher(&self) -> impl Fn() + Send + Sync + use<> {
        let wanted = Arc::clone(&self.wanted);
        move || wanted.notify_one()
    }

    /// The newest set if this handle has not seen it yet.
    pub(crate) fn take_change(&mut self) -> Set {
        let newest = {
            let newest = self.receiver.borrow_and_update();
            newest.has_changed().then(|| newest.clone()).flatten()
        };
        newest.map(|set| self.selected(set))
    }

    /// Makes the present set count as not yet seen.
    pub(crate) fn mark_unseen(&mut self) {
        self.receiver.mark_changed();
    }

    fn selected(&self, set: Arc<[Endpoint]>) -> Arc<[Endpoint]> {
        if self.selector.is_empty() {
            return set;
        }
        set.iter().filter(|endpoint| self.selector.matches(endpoint)).cloned().collect()
    }
}

/// The writing end of [`Updates`].
#[derive(Debug)]
pub struct Feed {
    sender: watch::Sender<Set>,
    failing: Arc<Mutex<Option<Instant>>>,
    wanted: Arc<Notify>,
}

impl Feed {
    /// Replaces the set, and ends a failure. Sequence and repetitions do not
    /// matter; a set equal to the present one wakes nobody. Where an address is
    /// given twice, the greatest weight stands.
    pub fn publish(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let mut set: Vec<Endpoint> = endpoints.into_iter().collect();
        set.sort_by(|a, b| (a.address, b.weight, b).cmp(&(b.address, a.weight, a)));
        set.dedup_by_key(|endpoint| endpoint.address);
        if set.len() > MAX_ENDPOINTS {
            tracing::warn!(endpoints = set.len(), kept = MAX_ENDPOINTS, "too many endpoints");
            set.truncate(MAX_ENDPOINTS);
        }
        self.succeeded();
        self.sender.send_if_modified(|present| {
            let changed = present.as_deref() != Some(&set[..]);
            if changed {
                *present = Some(set.into());
            }
            changed
        });
    }

    /// Says that the source fails. The set stays, and its age grows from `now`
    /// unless it grows already.
    pub fn failed(&self, now: Instant) {
        self.failing.lock().get_or_insert(now);
    }

    /// Says that the source answers and the set is as it was.
    pub fn succeeded(&self) {
        *self.failing.lock() = None;
    }

    /// Another reading end of the same set.
    pub fn subscribe(&self) -> Updates {
        Updates {
            receiver: self.sender.subscribe(),
            failing: Arc::clone(&self.failing),
            wanted: Arc::clone(&self.wanted),
            selector: Selector::default(),
        }
    }

    /// Waits until a reader thinks that the set is out of date ([`Updates::refresh`]). What
    /// was said before the wait counts, once. How often to obey is the source's business.
    ///
    /// Dropping the future loses nothing.
    pub async fn refresh_wanted(&self) {
        self.wanted.notified().await;
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

    #[tokio::test(start_paused = true)]
    async fn a_failing_source_ages_its_set_from_the_first_failure() {
        let (feed, updates) = Updates::channel();
        feed.publish([endpoint(1)]);
        let start = Instant::now();
        assert_eq!(updates.stale_for(start), None);
        feed.failed(start);
        feed.failed(start + Duration::from_secs(5));
        assert_eq!(updates.stale_for(start + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert_eq!(&updates.current()[..], &[endpoint(1)]);
        feed.publish([endpoint(1)]);
        assert_eq!(updates.stale_for(start), None);
    }

    #[tokio::test]
    async fn a_selection_is_made_of_each_set() {
        let (feed, updates) = Updates::channel();
        let two = || endpoint(2).with_version("2");
        let mut updates = updates.select(&Selector::default().with("version", "2"));
        feed.publish([endpoint(1).with_version("1"), two()]);
        assert_eq!(&updates.changed().await[..], &[two()]);
        assert_eq!(&updates.current()[..], &[two()]);
        feed.publish([endpoint(1)]);
        assert_eq!(updates.take_change().as_deref(), Some(&[][..]));
    }

    #[test]
    fn a_set_is_cut_off_before_it_fills_memory() {
        let (feed, updates) = Updates::channel();
        let many = (0..MAX_ENDPOINTS as u32 + 5)
            .map(|n| Endpoint::new((std::net::Ipv4Addr::from(n), 80).into()));
        feed.publish(many);
        assert_eq!(updates.current().len(), MAX_ENDPOINTS);
    }
}
