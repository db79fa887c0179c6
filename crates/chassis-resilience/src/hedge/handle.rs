//! The hedge as callers hold it: what was measured, and what was done.
//!
//! One belongs to one callee, because the delay is the callee's.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{HedgeSettings, delay::Delay};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The measured delay and the counts of one callee. Clones share them.
#[derive(Clone, Debug)]
pub struct Hedge {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    delay: Mutex<Delay>,
    sent: AtomicU64,
    won: AtomicU64,
    refused: AtomicU64,
}

/// What a [`Hedge`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeStats {
    /// Copies that were sent.
    pub sent: u64,
    /// Copies whose answer came first.
    pub won: u64,
    /// Copies that were not sent because the budget was empty.
    pub refused: u64,
    /// After which time a copy is sent now. `None` if too little is known.
    pub delay: Option<Duration>,
}

impl Hedge {
    /// A hedge that knows nothing yet.
    pub fn new(settings: HedgeSettings) -> Self {
        Hedge {
            inner: Arc::new(Inner {
                delay: Mutex::new(Delay::new(settings)),
                sent: AtomicU64::new(0),
                won: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
        }
    }

    /// After which time a copy is sent now. `None` if too little is known.
    pub fn delay(&self) -> Option<Duration> {
        self.inner.delay.lock().get(Instant::now().into_std())
    }

    /// The counts, for metrics.
    pub fn stats(&self) -> HedgeStats {
        HedgeStats {
            sent: self.inner.sent.load(Ordering::Relaxed),
            won: self.inner.won.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
            delay: self.delay(),
        }
    }

    pub(super) fn watch(&self) -> Watch {
        Watch { hedge: self.clone(), started: Instant::now(), late: false, done: false }
    }
}

impl Default for Hedge {
    fn default() -> Self {
        Hedge::new(HedgeSettings::default())
    }
}

/// The clock of one first attempt. However the call ends, what is known about how long the
/// first attempt took is recorded once.
#[derive(Debug)]
pub(super) struct Watch {
    hedge: Hedge,
    started: Instant,
    late: bool,
    done: bool,
}

impl Watch {
    /// The first attempt answered.
    pub(super) fn answered(&mut self) {
        self.record();
    }

    /// The first attempt failed: how long a failure takes says nothing about answers.
    pub(super) fn failed(&mut self) {
        self.done = true;
    }

    /// The delay is over. `paid` tells whether a copy is sent.
    pub(super) fn late(&mut self, paid: bool) {
        self.late = true;
        let count = if paid { &self.hedge.inner.sent } else { &self.hedge.inner.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The copy's answer came first.
    pub(super) fn copy_won(&mut self) {
        self.hedge.inner.won.fetch_add(1, Ordering::Relaxed);
    }

    fn record(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.started);
            self.hedge.inner.delay.lock().record(now.into_std(), took);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It would have taken longer, and longer than the delay is all that counts.
        if self.late {
            self.record();
        }
    }
}
