//! The bulkhead as callers hold it.
//!
//! tokio's semaphore is the fair queue; the bounds on how many wait and for how
//! long stand around it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BulkheadFull;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// The bounds of a [`Bulkhead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkheadSettings {
    /// So many calls may be under way, at least 1.
    pub max_concurrent: usize,
    /// So many calls may wait for a place.
    pub max_waiting: usize,
    /// No call waits longer for a place. Zero means that none waits.
    pub max_wait: Duration,
}

impl Default for BulkheadSettings {
    /// 256 calls, as many waiters, 100 ms.
    ///
    /// A queue as long as the number of places drains in the time of one call;
    /// whoever would wait longer should be told at once.
    fn default() -> Self {
        BulkheadSettings {
            max_concurrent: 256,
            max_waiting: 256,
            max_wait: Duration::from_millis(100),
        }
    }
}

/// A bound on concurrent calls. Clones share it.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: BulkheadSettings,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    rejected: AtomicU64,
}

/// A place for one call; dropping it frees the place.
#[derive(Debug)]
#[must_use = "dropping the slot frees the place"]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Bulkhead {
    /// An empty bulkhead.
    pub fn new(settings: BulkheadSettings) -> Self {
        // The upper bound is the semaphore's own.
        let places = settings.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Bulkhead {
            inner: Arc::new(Inner {
                settings: BulkheadSettings { max_concurrent: places, ..settings },
                places: Arc::new(Semaphore::new(places)),
                waiting: AtomicUsize::new(0),
                rejected: AtomicU64::new(0),
            }),
        }
    }

    /// Takes a place, waiting for one if need be. Dropping the future gives up
    /// the place in the queue.
    ///
    /// # Errors
    /// [`BulkheadFull`] if too many wait already, or the wait took too long.
    pub async fn enter(&self) -> Result<Slot, BulkheadFull> {
        match self.try_enter() {
            Some(slot) => Ok(slot),
            None => self.queue()?.wait().await,
        }
    }

    /// How many calls are under way.
    pub fn in_flight(&self) -> usize {
        self.inner.settings.max_concurrent.saturating_sub(self.inner.places.available_permits())
    }

    /// How many calls wait for a place.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// How many calls were refused since it was made.
    pub fn rejected(&self) -> u64 {
        self.inner.rejected.load(Ordering::Relaxed)
    }

    /// The bounds in force.
    pub fn settings(&self) -> &BulkheadSettings {
        &self.inner.settings
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_enter(&self) -> Option<Slot> {
        let permit = self.inner.places.clone().try_acquire_owned().ok()?;
        Some(Slot { _permit: permit })
    }

    /// A place in the queue.
    pub(super) fn queue(&self) -> Result<Waiter, BulkheadFull> {
        let settings = &self.inner.settings;
        let limit = if settings.max_wait.is_zero() { 0 } else { settings.max_waiting };
        let taken =
            self.inner.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < limit).then_some(waiting + 1)
            });
        match taken {
            Ok(_) => Ok(Waiter { bulkhead: self.clone() }),
            Err(_) => Err(self.refuse(Duration::ZERO)),
        }
    }

    fn refuse(&self, waited: Duration) -> BulkheadFull {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        BulkheadFull { limit: self.inner.settings.max_concurrent, waited }
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiter {
    bulkhead: Bulkhead,
}

impl Waiter {
    pub(super) async fn wait(self) -> Result<Slot, BulkheadFull> {
        let inner = &self.bulkhead.inner;
        let max_wait = inner.settings.max_wait;
        match tokio::time::timeout(max_wait, inner.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit }),
            // The semaphore is never closed, so this is the timeout.
            Ok(Err(_)) | Err(_) => Err(self.bulkhead.refuse(max_wait)),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.bulkhead.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
