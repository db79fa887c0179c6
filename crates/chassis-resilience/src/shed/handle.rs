//! The shedder as a server holds it.
//!
//! One belongs to one process: what it measures, the process has once.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Priority, Shed, delay::QueueDelay};
use crate::{
    adaptive::{AdaptiveLimit, AdaptiveSettings, AdaptiveStats, Place},
    sync::{AtomicU32, AtomicU64, Mutex, Ordering},
};

/// How often the run queue is looked at.
const TICK: Duration = Duration::from_millis(10);
/// The whole limit, in thousandths.
const WHOLE: u32 = 1_000;

/// The numbers of a [`Shedder`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShedSettings {
    /// How the limit on requests under way is measured.
    pub adaptive: AdaptiveSettings,
    /// The share of the limit that [`Priority::Normal`] may use, from 0 to 1.
    pub normal_share: f64,
    /// The share of the limit that [`Priority::Sheddable`] may use, from 0 to 1.
    pub sheddable_share: f64,
    /// How long a task may wait for a processor for long, where [`Shedder::watch_queue`] runs.
    pub queue_delay: Duration,
}

impl Default for ShedSettings {
    /// A tenth of the room is kept for critical requests, and as much again for normal ones
    /// before sheddable ones: enough that a critical request finds a place, little enough that
    /// hardly any room is idle ("Scaling your API with rate limiters", Stripe 2017, keeps a
    /// fifth). CoDel's 5 ms.
    fn default() -> Self {
        ShedSettings {
            adaptive: AdaptiveSettings::default(),
            normal_share: 0.9,
            sheddable_share: 0.8,
            queue_delay: Duration::from_millis(5),
        }
    }
}

/// Decides which requests there is room for. Clones share it.
#[derive(Clone, Debug)]
pub struct Shedder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: ShedSettings,
    limit: AdaptiveLimit,
    queue: Mutex<QueueDelay>,
    /// What the queue leaves of the limit, in thousandths: read for each request.
    part: AtomicU32,
    shed: [AtomicU64; 3],
}

/// A snapshot of a [`Shedder`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShedStats {
    /// The limit and what is under way.
    pub adaptive: AdaptiveStats,
    /// The part of the limit that the run queue leaves, from 0.1 to 1.
    pub part: f64,
    /// Requests of [`Priority::Sheddable`] that were shed since it was made.
    pub sheddable: u64,
    /// Requests of [`Priority::Normal`] that were shed.
    pub normal: u64,
    /// Requests of [`Priority::Critical`] that were shed.
    pub critical: u64,
}

impl Shedder {
    /// A shedder that has measured nothing yet.
    pub fn new(settings: ShedSettings) -> Self {
        Shedder {
            inner: Arc::new(Inner {
                settings,
                limit: AdaptiveLimit::new(settings.adaptive),
                queue: Mutex::new(QueueDelay::new(settings.queue_delay)),
                part: AtomicU32::new(WHOLE),
                shed: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
            }),
        }
    }

    /// Takes a place for a request; [`Priority::Exempt`] needs none.
    ///
    /// # Errors
    /// [`Shed`] if there is no room for a request of this priority.
    pub fn try_enter(&self, priority: Priority, now: Instant) -> Result<Option<Place>, Shed> {
        let settings = &self.inner.settings;
        let (share, shed) = match priority {
            Priority::Exempt => return Ok(None),
            Priority::Critical => (1.0, &self.inner.shed[2]),
            Priority::Normal => (settings.normal_share, &self.inner.shed[1]),
            Priority::Sheddable => (settings.sheddable_share, &self.inner.shed[0]),
        };
        let part = self.part();
        self.inner.limit.try_enter_within(now, share * part).map(Some).map_err(|full| {
            shed.fetch_add(1, Ordering::Relaxed);
            Shed { priority, limit: full.limit }
        })
    }

    /// Looks every 10 ms how late a task of this runtime is, and shrinks the limit while tasks
    /// wait for a processor. Runs until it is dropped; whoever owns the server spawns it.
    pub async fn watch_queue(&self) {
        loop {
            let due = Instant::now() + TICK;
            tokio::time::sleep_until(due).await;
            let now = Instant::now();
            let mut queue = self.inner.queue.lock();
            queue.observe(now.into_std(), now.saturating_duration_since(due));
            // From 100 to 1000: a float cast rounds down.
            let part = (queue.part() * f64::from(WHOLE)).round() as u32;
            self.inner.part.store(part, Ordering::Relaxed);
        }
    }

    fn part(&self) -> f64 {
        f64::from(self.inner.part.load(Ordering::Relaxed)) / f64::from(WHOLE)
    }

    /// A snapshot, for metrics.
    pub fn stats(&self) -> ShedStats {
        let shed = |index: usize| self.inner.shed[index].load(Ordering::Relaxed);
        ShedStats {
            adaptive: self.inner.limit.stats(),
            part: self.part(),
            sheddable: shed(0),
            normal: shed(1),
            critical: shed(2),
        }
    }
}

impl Default for Shedder {
    fn default() -> Self {
        Shedder::new(ShedSettings::default())
    }
}
