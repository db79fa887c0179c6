//! The cache as callers hold it.
//!
//! A fetch is a task of its own: it goes on when the caller who began it leaves, because
//! others may be waiting for it and the callee has the load anyway.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    CacheSettings, Cached, FetchFailed, Freshness,
    age::{Entry, Use},
    table::Table,
};
use crate::{
    BoxError,
    sync::{AtomicU64, Mutex, Ordering},
};

/// Values by key, in bounded memory. Clones share them.
#[derive(Debug)]
pub struct Cache<K, V> {
    inner: Arc<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    settings: CacheSettings,
    state: Mutex<Held<K, V>>,
    hits: AtomicU64,
    stale: AtomicU64,
    fetches: AtomicU64,
    failures: AtomicU64,
    stood_in: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Held<K, V> {
    table: Table<K, Entry<V>>,
    flights: HashMap<K, (u64, Waiting<V>)>,
    next_flight: u64,
}

/// What a fetch came to. `false` marks a value that is not worth keeping.
type Landing<V> = Result<(V, bool), FetchFailed>;
type Waiting<V> = watch::Receiver<Option<Landing<V>>>;

/// What a [`Cache`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Values that are kept now.
    pub entries: usize,
    /// Calls that were answered with a fresh value from memory.
    pub hits: u64,
    /// Calls that were answered with an old value while it was fetched anew.
    pub stale: u64,
    /// Fetches that were begun.
    pub fetches: u64,
    /// Fetches that failed.
    pub failures: u64,
    /// Calls that were answered with an old value because the callee failed.
    pub stood_in: u64,
    /// Values that had to make room.
    pub evicted: u64,
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Cache { inner: self.inner.clone() }
    }
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty cache.
    pub fn new(settings: CacheSettings) -> Self {
        Cache {
            inner: Arc::new(Inner {
                settings,
                state: Mutex::new(Held {
                    table: Table::new(settings.max_entries),
                    flights: HashMap::new(),
                    next_flight: 0,
                }),
                hits: AtomicU64::new(0),
                stale: AtomicU64::new(0),
                fetches: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                stood_in: AtomicU64::new(0),
                evicted: AtomicU64::new(0),
            }),
        }
    }

    /// The value of `key`, from memory or from `fetch`. Dropping the future leaves a fetch that
    /// has begun to the others that wait for it; its value is kept.
    ///
    /// # Errors
    /// [`FetchFailed`] if the value could not be fetched and no old one may stand in for it.
    pub async fn get_or_fetch<F, E>(
        &self,
        key: K,
        fetch: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Cached<V>, FetchFailed>
    where
        F: Future<Output = Result<V, E>> + Send,
        E: Into<BoxError>,
    {
        self.get_or_fetch_if(key, fetch, |_| true).await
    }

    /// As [`Cache::get_or_fetch`], for callees that fail with a value: one that `keep` rejects
    /// is not kept, and an old value that may stand in for it is given instead.
    ///
    /// # Errors
    /// As [`Cache::get_or_fetch`].
    pub async fn get_or_fetch_if<F, E>(
        &self,
        key: K,
        fetch: impl FnOnce() -> F + Send + 'static,
        keep: impl FnOnce(&V) -> bool + Send + 'static,
    ) -> Result<Cached<V>, FetchFailed>
    where
        F: Future<Output = Result<V, E>> + Send,
        E: Into<BoxError>,
    {
        let (found, boarded) = self.look_up(&key);
        let waiting = boarded.map(|(waiting, flight)| {
            if let Some(flight) = flight {
                flight.take_off(fetch, keep);
            }
            waiting
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let landing = match waiting {
            Err(refused) => Err(refused),
            Ok(mut waiting) => match waiting.wait_for(Option::is_some).await {
                Ok(landing) => landing.clone().unwrap_or(Err(FetchFailed::Lost)),
                Err(_) => Err(FetchFailed::Lost),
            },
        };
        let fresh = |value, freshness| Cached { value, age: Duration::ZERO, freshness };
        match landing {
            Ok((value, true)) => Ok(fresh(value, Freshness::Fresh)),
            Ok((value, false)) => {
                Ok(self.stand_in(&key).unwrap_or_else(|| fresh(value, Freshness::Uncached)))
            }
            Err(error) => self.stand_in(&key).ok_or(error),
        }
    }

    /// What can be given at once, and the flight to wait for or to begin. With a fresh value
    /// there is no flight.
    fn look_up(&self, key: &K) -> (Option<Cached<V>>, Boarding<K, V>) {
        let now = Instant::now().into_std();
        let mut held = self.inner.state.lock();
        let mut found = None;
        if let Some(entry) = held.table.get(key) {
            let given = |freshness| {
                Some(Cached { value: entry.value.clone(), age: entry.age(now), freshness })
            };
            match entry.good_for(now, &self.inner.settings) {
                Use::Give => {
                    self.inner.hits.fetch_add(1, Ordering::Relaxed);
                    return (given(Freshness::Fresh), Err(FetchFailed::Lost));
                }
                Use::GiveAndFetch => {
                    self.inner.stale.fetch_add(1, Ordering::Relaxed);
                    found = given(Freshness::Stale);
                }
                Use::OnlyOnError | Use::Nothing => {}
            }
        }
        (found, self.board(&mut held, key))
    }

    /// The value of `key` if it may stand in for a callee that fails, however it is.
    pub fn stand_in(&self, key: &K) -> Option<Cached<V>> {
        let now = Instant::now().into_std();
        let mut held = self.inner.state.lock();
        let entry = held.table.get(key)?;
        if !entry.outlasts_error(now, &self.inner.settings) {
            return None;
        }
        let found = Cached {
            value: entry.value.clone(),
            age: entry.age(now),
            freshness: Freshness::StaleOnError,
        };
        self.inner.stood_in.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Keeps a value that the caller has from elsewhere. A fetch of that key that is under way
    /// does not overwrite it.
    pub fn insert(&self, key: K, value: V) {
        let mut held = self.inner.state.lock();
        held.flights.remove(&key);
        self.keep(&mut held, key, value);
    }

    /// Forgets a value. A fetch of that key that is under way, which may have read what was
    /// there before, is not kept either.
    pub fn remove(&self, key: &K) {
        let mut held = self.inner.state.lock();
        held.flights.remove(key);
        held.table.remove(key);
    }

    /// The counts, for metrics.
    pub fn stats(&self) -> CacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            entries: self.inner.state.lock().table.len(),
            hits: count(&self.inner.hits),
            stale: count(&self.inner.stale),
            fetches: count(&self.inner.fetches),
            failures: count(&self.inner.failures),
            stood_in: count(&self.inner.stood_in),
            evicted: count(&self.inner.evicted),
        }
    }

    fn keep(&self, held: &mut Held<K, V>, key: K, value: V) {
        let now = Instant::now().into_std();
        let entry = Entry::new(value, now, &self.inner.settings, fastrand::f64());
        if held.table.insert(key, entry) {
            self.inner.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The fetch of `key` that is under way, or a new one that is still to take off.
    fn board(&self, held: &mut Held<K, V>, key: &K) -> Boarding<K, V> {
        if let Some((_, waiting)) = held.flights.get(key) {
            return Ok((waiting.clone(), None));
        }
        if held.flights.len() >= self.inner.settings.max_fetches.max(1) {
            return Err(FetchFailed::TooMany);
        }
        let (landed, waiting) = watch::channel(None);
        let number = held.next_flight;
        held.next_flight += 1;
        held.flights.insert(key.clone(), (number, waiting.clone()));
        self.inner.fetches.fetch_add(1, Ordering::Relaxed);
        let flight = Flight { cache: self.clone(), key: key.clone(), number, landed };
        Ok((waiting, Some(flight)))
    }
}

/// Where a fetch is waited for, and the fetch if it is still to begin.
type Boarding<K, V> = Result<(Waiting<V>, Option<Flight<K, V>>), FetchFailed>;

/// A fetch that is under way. However it ends, its place is freed.
struct Flight<K: Eq + Hash, V> {
    cache: Cache<K, V>,
    key: K,
    number: u64,
    landed: watch::Sender<Option<Landing<V>>>,
}

impl<K, V> Flight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Fetches in a task of its own. All of the caller's code runs there, and never under the
    /// lock.
    fn take_off<F, E>(
        self,
        fetch: impl FnOnce() -> F + Send + 'static,
        keep: impl FnOnce(&V) -> bool + Send + 'static,
    ) where
        F: Future<Output = Result<V, E>> + Send,
        E: Into<BoxError>,
    {
        let limit = self.cache.inner.settings.fetch_timeout;
        tokio::spawn(async move {
            let fetching = async { fetch().await.map_err(Into::into) };
            let landing = match tokio::time::timeout(limit, fetching).await {
                Ok(Ok(value)) => {
                    let kept = keep(&value);
                    Ok((value, kept))
                }
                Ok(Err(error)) => Err(FetchFailed::Failed(Arc::new(error))),
                Err(_) => Err(FetchFailed::TimedOut),
            };
            self.land(landing);
        });
    }

    fn land(self, landing: Landing<V>) {
        if !matches!(landing, Ok((_, true))) {
            self.cache.inner.failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Ok((value, true)) = &landing {
            let mut held = self.cache.inner.state.lock();
            // Removed or replaced in the meantime: what was fetched may be older than that.
            if held.flights.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
                self.cache.keep(&mut held, self.key.clone(), value.clone());
            }
        }
        self.landed.send_replace(Some(landing));
    }
}

impl<K: Eq + Hash, V> Drop for Flight<K, V> {
    fn drop(&mut self) {
        let mut held = self.cache.inner.state.lock();
        if held.flights.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            held.flights.remove(&self.key);
        }
    }
}
