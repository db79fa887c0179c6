//! One limit per key, in bounded memory.
//!
//! Keys come from outside, so their number must not be theirs to choose. An idle
//! key is the same as an unknown one, so idle keys are dropped when the table is
//! full. If all are busy, new keys share one limit: a flood of made-up keys
//! then limits itself, and the keys that were there before keep their own.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Gcra, RateLimit, RateLimited};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// A rate limit for each key. Clones share it.
#[derive(Debug)]
pub struct KeyedRateLimit<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    limit: RateLimit,
    table: Mutex<Table<K>>,
    rejected: AtomicU64,
}

impl<K> Clone for KeyedRateLimit<K> {
    fn clone(&self) -> Self {
        KeyedRateLimit { inner: self.inner.clone() }
    }
}

impl<K: Eq + Hash> KeyedRateLimit<K> {
    /// `limit` for each of at most `max_keys` keys (at least 1).
    pub fn new(limit: RateLimit, max_keys: usize) -> Self {
        KeyedRateLimit {
            inner: Arc::new(Inner {
                limit,
                table: Mutex::new(Table::new(max_keys.max(1))),
                rejected: AtomicU64::new(0),
            }),
        }
    }

    /// Lets one call of `key` pass and counts it.
    ///
    /// # Errors
    /// [`RateLimited`] if the call is above the limit of its key.
    pub fn check(&self, key: K) -> Result<(), RateLimited> {
        let now = tokio::time::Instant::now().into_std();
        let result = self.inner.table.lock().check(&self.inner.limit, key, now);
        result.map_err(|retry_in| {
            self.inner.rejected.fetch_add(1, Ordering::Relaxed);
            RateLimited { retry_in }
        })
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.inner.table.lock().gcras.len()
    }

    /// How many calls were refused since it was made.
    pub fn rejected(&self) -> u64 {
        self.inner.rejected.load(Ordering::Relaxed)
    }
}

/// The brain: a bounded table of [`Gcra`]s.
#[derive(Debug)]
pub(super) struct Table<K> {
    max_keys: usize,
    gcras: HashMap<K, Gcra>,
    overflow: Gcra,
    next_sweep: Option<Instant>,
}

impl<K: Eq + Hash> Table<K> {
    pub(super) fn new(max_keys: usize) -> Self {
        Table { max_keys, gcras: HashMap::new(), overflow: Gcra::default(), next_sweep: None }
    }

    fn check(&mut self, limit: &RateLimit, key: K, now: Instant) -> Result<(), Duration> {
        self.take(limit, key, now, 1).map(|_| ())
    }

    /// As [`Gcra::take`] for one key.
    pub(super) fn take(
        &mut self,
        limit: &RateLimit,
        key: K,
        now: Instant,
        want: u32,
    ) -> Result<u32, Duration> {
        if let Some(gcra) = self.gcras.get_mut(&key) {
            return gcra.take(limit, now, want);
        }
        if self.gcras.len() >= self.max_keys {
            self.sweep(limit, now);
        }
        if self.gcras.len() >= self.max_keys {
            return self.overflow.take(limit, now, want);
        }
        self.gcras.entry(key).or_default().take(limit, now, want)
    }

    /// Drops idle keys. Looking at all of them is dear, so it is done at most
    /// once in the time in which a busy key becomes idle.
    fn sweep(&mut self, limit: &RateLimit, now: Instant) {
        if self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        self.gcras.retain(|_, gcra| !gcra.is_idle(now));
        self.next_sweep = now.checked_add(limit.refill());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_do_not_disturb_each_other() {
        let now = tokio::time::Instant::now().into_std();
        let limit = RateLimit::per_second(1);
        let mut table = Table::new(10);
        assert!(table.check(&limit, "a", now).is_ok());
        assert!(table.check(&limit, "a", now).is_err());
        assert!(table.check(&limit, "b", now).is_ok());
    }

    #[test]
    fn a_full_table_makes_newcomers_share() {
        let now = tokio::time::Instant::now().into_std();
        let limit = RateLimit::per_second(1);
        let mut table = Table::new(2);
        assert!(table.check(&limit, 1, now).is_ok());
        assert!(table.check(&limit, 2, now).is_ok());
        assert!(table.check(&limit, 3, now).is_ok());
        assert!(table.check(&limit, 4, now).is_err());
        // The known keys keep their own pace.
        let later = now + Duration::from_secs(1);
        assert!(table.check(&limit, 1, later).is_ok());
        assert!(table.check(&limit, 2, later).is_ok());
    }

    #[test]
    fn idle_keys_make_room() {
        let now = tokio::time::Instant::now().into_std();
        let limit = RateLimit::per_second(1);
        let mut table = Table::new(2);
        assert!(table.check(&limit, 1, now).is_ok());
        assert!(table.check(&limit, 2, now).is_ok());
        let later = now + Duration::from_secs(2);
        assert!(table.check(&limit, 3, later).is_ok());
        assert_eq!(table.gcras.len(), 1);
    }

    proptest! {
        #[test]
        fn memory_and_rate_stay_bounded_under_a_flood_of_keys(
            max_keys in 1usize..8,
            calls in prop::collection::vec((0u64..200, any::<u16>()), 1..400),
        ) {
            let limit = RateLimit::per_second(10).burst(2);
            let start = tokio::time::Instant::now().into_std();
            let mut at = Duration::ZERO;
            let mut table = Table::new(max_keys);
            let mut passed = 0u128;
            for (millis, key) in calls {
                at += Duration::from_millis(millis);
                passed += u128::from(table.check(&limit, key, start + at).is_ok());
                prop_assert!(table.gcras.len() <= max_keys);
            }
            // Each place in the table, and the shared one, keeps the rate.
            let each = 2 + at.as_nanos() / limit.interval().as_nanos();
            prop_assert!(passed <= each * (max_keys as u128 + 1));
        }
    }
}
