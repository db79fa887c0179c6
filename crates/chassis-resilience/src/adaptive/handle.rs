//! The limit as callers hold it.
//!
//! What is under way and the limit stand behind one lock, so that no two calls can take the
//! last place.

use std::sync::Arc;

use tokio::time::Instant;

use super::{AdaptiveSettings, ConcurrencyLimited, gradient::Gradient};
use crate::{
    Class, Guard, Settle, Verdict,
    sync::{AtomicU64, Mutex, Ordering},
};

/// A measured bound on concurrent calls. Clones share it.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    room: Mutex<Room>,
    rejected: AtomicU64,
}

#[derive(Debug)]
struct Room {
    gradient: Gradient,
    in_flight: u32,
}

/// A snapshot of an [`AdaptiveLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveStats {
    /// How many calls may be under way now.
    pub limit: u32,
    /// How many are.
    pub in_flight: u32,
    /// The latency when nobody waits, once it is measured.
    pub least: Option<std::time::Duration>,
    /// Calls that were refused since it was made.
    pub rejected: u64,
}

impl AdaptiveLimit {
    /// A limit that has measured nothing yet. Settings that are out of range are moved to the
    /// nearest valid value.
    pub fn new(settings: AdaptiveSettings) -> Self {
        let gradient = Gradient::new(settings, fastrand::u64(..));
        AdaptiveLimit {
            inner: Arc::new(Inner {
                room: Mutex::new(Room { gradient, in_flight: 0 }),
                rejected: AtomicU64::new(0),
            }),
        }
    }

    /// Takes a place for a call that begins at `now`.
    ///
    /// # Errors
    /// [`ConcurrencyLimited`] if all are taken.
    pub fn try_enter(&self, now: Instant) -> Result<Place, ConcurrencyLimited> {
        self.try_enter_within(now, 1.0)
    }

    /// As [`AdaptiveLimit::try_enter`], within `share` of the limit (from 0 to 1) and at least
    /// one place.
    pub(crate) fn try_enter_within(
        &self,
        now: Instant,
        share: f64,
    ) -> Result<Place, ConcurrencyLimited> {
        let mut room = self.inner.room.lock();
        let limit = room.gradient.limit(now.into_std());
        // A float cast saturates.
        let within = ((f64::from(limit) * share) as u32).max(1);
        if room.in_flight >= within {
            drop(room);
            self.inner.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(ConcurrencyLimited { limit: within });
        }
        room.in_flight += 1;
        Ok(Place { limit: self.clone(), started: now, answered: None })
    }

    /// A snapshot, for metrics.
    pub fn stats(&self) -> AdaptiveStats {
        let mut room = self.inner.room.lock();
        AdaptiveStats {
            limit: room.gradient.limit(Instant::now().into_std()),
            in_flight: room.in_flight,
            least: room.gradient.least(),
            rejected: self.inner.rejected.load(Ordering::Relaxed),
        }
    }
}

impl<Req> Guard<Req> for AdaptiveLimit {
    type Account = Place;
    type Refused = ConcurrencyLimited;

    fn enter(&self, _: &Req, now: Instant) -> Result<Place, ConcurrencyLimited> {
        self.try_enter(now)
    }
}

impl Default for AdaptiveLimit {
    fn default() -> Self {
        AdaptiveLimit::new(AdaptiveSettings::default())
    }
}

/// A place for one call. Say how it ended; dropping it frees the place, and the time that it
/// was held counts if it was long.
#[derive(Debug)]
#[must_use = "dropping the place frees it"]
pub struct Place {
    limit: AdaptiveLimit,
    started: Instant,
    answered: Option<Class>,
}

impl Settle for Place {
    fn settle(mut self, verdict: Verdict) {
        self.answered = Some(verdict.class);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now().into_std();
        let started = self.started.into_std();
        let mut room = self.limit.inner.room.lock();
        let in_flight = room.in_flight;
        room.in_flight = in_flight.saturating_sub(1);
        match self.answered {
            Some(Class::Success) => room.gradient.answered(now, started, in_flight),
            Some(Class::Failure | Class::Overloaded | Class::Unreachable) | None => {
                room.gradient.lost(now, started, in_flight);
            }
            Some(Class::Refused | Class::Ignore) => {}
        }
    }
}
