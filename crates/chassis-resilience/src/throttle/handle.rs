//! The throttle as callers hold it.
//!
//! One belongs to one callee, like a breaker.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ThrottleSettings, Throttled, accepts::Accepts};
use crate::{
    Class, Guard, Settle, Verdict,
    sync::{AtomicU64, Mutex, Ordering},
};

/// A throttle for one callee. Clones share it.
#[derive(Clone, Debug)]
pub struct Throttle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    accepts: Mutex<Accepts>,
    refused: AtomicU64,
}

/// A snapshot of a throttle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThrottleStats {
    /// Requests in the window, with those that were refused here.
    pub requests: u64,
    /// Requests in the window that the callee accepted.
    pub accepts: u64,
    /// The share of calls that is refused now, from 0 to 1.
    pub share: f64,
    /// Calls that were refused since it was made.
    pub refused: u64,
}

impl Throttle {
    /// A throttle that knows nothing yet and refuses nothing.
    pub fn new(settings: ThrottleSettings) -> Self {
        let accepts = Mutex::new(Accepts::new(settings));
        Throttle { inner: Arc::new(Inner { accepts, refused: AtomicU64::new(0) }) }
    }

    /// Asks to make a call at `now`.
    ///
    /// # Errors
    /// [`Throttled`] if the call must not be made.
    pub fn try_acquire(&self, now: Instant) -> Result<ThrottlePermit, Throttled> {
        let admitted = self.inner.accepts.lock().admit(now.into_std(), fastrand::f64());
        match admitted {
            Ok(()) => Ok(ThrottlePermit { throttle: self.clone() }),
            Err(share) => {
                self.inner.refused.fetch_add(1, Ordering::Relaxed);
                Err(Throttled { share })
            }
        }
    }

    /// A snapshot, for metrics.
    pub fn stats(&self) -> ThrottleStats {
        let now = Instant::now().into_std();
        let mut accepts = self.inner.accepts.lock();
        let counts = accepts.counts(now);
        ThrottleStats {
            requests: counts.requests,
            accepts: counts.accepts,
            share: accepts.share(now),
            refused: self.inner.refused.load(Ordering::Relaxed),
        }
    }
}

impl<Req> Guard<Req> for Throttle {
    type Account = ThrottlePermit;
    type Refused = Throttled;

    fn enter(&self, _: &Req, now: Instant) -> Result<ThrottlePermit, Throttled> {
        self.try_acquire(now)
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Throttle::new(ThrottleSettings::default())
    }
}

/// Leave to make one call. Say how it ended; a call that nobody waited for is not counted.
#[derive(Debug)]
#[must_use = "a call whose end is not told is not counted"]
pub struct ThrottlePermit {
    throttle: Throttle,
}

impl Settle for ThrottlePermit {
    fn settle(self, verdict: Verdict) {
        let accepted = match verdict.class {
            Class::Success => true,
            Class::Failure | Class::Overloaded | Class::Unreachable => false,
            Class::Refused | Class::Ignore => return,
        };
        self.throttle.inner.accepts.lock().ended(Instant::now().into_std(), accepted);
    }
}
