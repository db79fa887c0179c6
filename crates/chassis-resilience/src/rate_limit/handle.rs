//! The limiter as callers hold it.
//!
//! One instant behind one lock that is held for a few nanoseconds.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Gcra, RateLimit, RateLimited};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// A rate limit for one thing. Clones share it.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: RateLimit,
    gcra: Mutex<Gcra>,
    rejected: AtomicU64,
}

impl RateLimiter {
    /// A limiter with its whole burst to give.
    pub fn new(limit: RateLimit) -> Self {
        RateLimiter {
            inner: Arc::new(Inner {
                limit,
                gcra: Mutex::new(Gcra::default()),
                rejected: AtomicU64::new(0),
            }),
        }
    }

    /// Lets one call pass and counts it.
    ///
    /// # Errors
    /// [`RateLimited`] if the call is above the limit.
    pub fn check(&self) -> Result<(), RateLimited> {
        let now = Instant::now().into_std();
        let result = self.inner.gcra.lock().check(&self.inner.limit, now);
        result.map_err(|retry_in| {
            self.inner.rejected.fetch_add(1, Ordering::Relaxed);
            RateLimited { retry_in }
        })
    }

    /// How many calls were refused since it was made.
    pub fn rejected(&self) -> u64 {
        self.inner.rejected.load(Ordering::Relaxed)
    }
}
