//! The shared limit as callers hold it.
//!
//! Of the calls of one key that find no token, one asks the store and the others wait for what
//! it gets: the store sees one request for each lease, not one for each call.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    TokenStore,
    lease::{Lease, Step},
};
use crate::{
    rate_limit::{Gcra, RateLimit, RateLimited},
    sync::{AtomicU64, Mutex, Ordering},
};

/// The key that newcomers share when there are too many.
const OTHERS: &str = "*";

/// What holds while the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreDown {
    /// Each instance keeps its share of the limit by itself: calls go on, and the limit holds
    /// as long as there are no more instances than this.
    LocalShare {
        /// How many instances there are, at least 1.
        instances: u32,
    },
    /// Every call is refused: the limit matters more than the calls.
    Refuse,
}

/// The numbers of a [`SharedRateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// So many tokens are taken at a time at most, at least 1.
    pub lease_tokens: u32,
    /// Tokens that were not spent after this time are lost.
    pub lease_for: Duration,
    /// The store is given so long for an answer.
    pub store_timeout: Duration,
    /// So long after a failure the store is not asked.
    pub retry_store_after: Duration,
    /// What holds meanwhile.
    pub on_store_down: OnStoreDown,
    /// So many keys have tokens of their own, at least 1; newcomers beyond that share one.
    pub max_keys: usize,
}

impl Default for SharedSettings {
    /// Up to 100 tokens for a second: a store sees a hundredth of the calls, and the limit is
    /// exceeded for no more than a second. 50 ms and a second's pause keep a store that hangs
    /// from hanging the calls. A share of three, because most services have three instances.
    fn default() -> Self {
        SharedSettings {
            lease_tokens: 100,
            lease_for: Duration::from_secs(1),
            store_timeout: Duration::from_millis(50),
            retry_store_after: Duration::from_secs(1),
            on_store_down: OnStoreDown::LocalShare { instances: 3 },
            max_keys: 10_000,
        }
    }
}

/// A rate limit by key that several instances keep together. Clones share it.
#[derive(Clone)]
pub struct SharedRateLimit {
    inner: Arc<Inner>,
}

struct Inner {
    store: Box<dyn TokenStore>,
    limit: RateLimit,
    settings: SharedSettings,
    keys: Mutex<Keys>,
    down_until: Mutex<Option<Instant>>,
    rejected: AtomicU64,
    asked: AtomicU64,
    failures: AtomicU64,
    local: AtomicU64,
}

#[derive(Default)]
struct Keys {
    known: HashMap<Box<str>, Arc<Key>>,
    next_sweep: Option<Instant>,
}

#[derive(Default)]
struct Key {
    lease: Mutex<Lease>,
    /// Keeps the pace while the store is down.
    local: Mutex<Gcra>,
    asking: tokio::sync::Mutex<()>,
}

/// What a [`SharedRateLimit`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStats {
    /// Keys that are remembered now.
    pub keys: usize,
    /// Calls that were refused.
    pub rejected: u64,
    /// Requests to the store.
    pub asked: u64,
    /// Requests to the store that failed or took too long.
    pub failures: u64,
    /// Calls that were decided without the store because it is down.
    pub local: u64,
}

impl SharedRateLimit {
    /// All instances that use the same store and the same keys keep `limit` for each key.
    pub fn new(store: impl TokenStore, limit: RateLimit, settings: SharedSettings) -> Self {
        SharedRateLimit {
            inner: Arc::new(Inner {
                store: Box::new(store),
                limit,
                settings,
                keys: Mutex::new(Keys::default()),
                down_until: Mutex::new(None),
                rejected: AtomicU64::new(0),
                asked: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                local: AtomicU64::new(0),
            }),
        }
    }

    /// Lets one call of `key` pass and counts it, asking the store if there is no token in
    /// hand. Dropping the future may lose tokens that the store has given; it never makes more.
    ///
    /// # Errors
    /// [`RateLimited`] if the call is above the limit, or the store is down and
    /// [`OnStoreDown::Refuse`] holds.
    pub async fn check(&self, key: &str) -> Result<(), RateLimited> {
        match self.try_check(key) {
            Some(decided) => decided,
            None => self.ask(key).await,
        }
    }

    /// As [`SharedRateLimit::check`], if it can be decided without the store. `None` is the
    /// leave to [`ask`](SharedRateLimit::ask) it.
    pub(super) fn try_check(&self, key: &str) -> Option<Result<(), RateLimited>> {
        let now = Instant::now();
        let (_, key) = self.key(key);
        let step = key.lease.lock().step(now.into_std(), self.inner.settings.lease_tokens);
        match step {
            Step::Pass => Some(Ok(())),
            Step::Refuse(retry_in) => Some(Err(self.refused(retry_in))),
            Step::Ask(_) => {
                let until = self.down_until(now)?;
                Some(self.decide_alone(&key, now, until))
            }
        }
    }

    /// Until when the store is left alone. Once that time is over, the first call is let
    /// through to it, and the others wait for what that finds.
    fn down_until(&self, now: Instant) -> Option<Instant> {
        let mut down = self.inner.down_until.lock();
        let until = (*down)?;
        if now < until {
            return Some(until);
        }
        *down = now.checked_add(self.inner.settings.store_timeout);
        None
    }

    /// The counts, for metrics.
    pub fn stats(&self) -> SharedStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharedStats {
            keys: self.inner.keys.lock().known.len(),
            rejected: count(&self.inner.rejected),
            asked: count(&self.inner.asked),
            failures: count(&self.inner.failures),
            local: count(&self.inner.local),
        }
    }

    /// Asks the store for tokens and spends one.
    pub(super) async fn ask(&self, key: &str) -> Result<(), RateLimited> {
        let (name, key) = self.key(key);
        let settings = &self.inner.settings;
        let asking = async {
            let _turn = key.asking.lock().await;
            // Whoever asked before may have brought enough.
            let want = {
                let now = Instant::now().into_std();
                match key.lease.lock().step(now, settings.lease_tokens) {
                    Step::Pass => return Ok(Ok(())),
                    Step::Refuse(retry_in) => return Ok(Err(retry_in)),
                    Step::Ask(want) => want,
                }
            };
            self.inner.asked.fetch_add(1, Ordering::Relaxed);
            let grant = self.inner.store.take(name, self.inner.limit, want).await?;
            let now = Instant::now().into_std();
            let mut lease = key.lease.lock();
            lease.granted(now, grant, settings.lease_for, self.pause());
            Ok::<_, crate::BoxError>(match lease.step(now, settings.lease_tokens) {
                Step::Pass => Ok(()),
                Step::Refuse(retry_in) => Err(retry_in),
                // A lease or a wait of no time at all.
                Step::Ask(_) => Err(Duration::ZERO),
            })
        };
        match tokio::time::timeout(settings.store_timeout, asking).await {
            Ok(Ok(result)) => {
                *self.inner.down_until.lock() = None;
                result.map_err(|retry_in| self.refused(retry_in))
            }
            Ok(Err(_)) | Err(_) => {
                self.inner.failures.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now();
                let until = now.checked_add(settings.retry_store_after).unwrap_or(now);
                *self.inner.down_until.lock() = Some(until);
                self.decide_alone(&key, now, until)
            }
        }
    }

    /// How long the store is left alone after a refusal. In that time tokens come back at the
    /// store, so it is no longer than half of what it can hold.
    fn pause(&self) -> Duration {
        (self.inner.settings.lease_for / 20).min(self.inner.limit.refill() / 2)
    }

    /// The store is down until at least `until`.
    fn decide_alone(&self, key: &Key, now: Instant, until: Instant) -> Result<(), RateLimited> {
        self.inner.local.fetch_add(1, Ordering::Relaxed);
        let decided = match self.inner.settings.on_store_down {
            OnStoreDown::Refuse => Err(until.saturating_duration_since(now)),
            OnStoreDown::LocalShare { instances } => {
                key.local.lock().check(&self.inner.limit.share(instances), now.into_std())
            }
        };
        decided.map_err(|retry_in| self.refused(retry_in))
    }

    fn refused(&self, retry_in: Duration) -> RateLimited {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        RateLimited { retry_in }
    }

    /// What is known of a key, and its name for the store; of a newcomer that finds no room,
    /// what is known of all those.
    fn key<'a>(&self, key: &'a str) -> (&'a str, Arc<Key>) {
        let mut keys = self.inner.keys.lock();
        if let Some(known) = keys.known.get(key) {
            return (key, known.clone());
        }
        // One place more is for all the others.
        let most = self.inner.settings.max_keys.max(1);
        if keys.known.len() >= most {
            self.sweep(&mut keys);
        }
        let name = if keys.known.len() >= most { OTHERS } else { key };
        (name, keys.known.entry(name.into()).or_default().clone())
    }

    /// Drops idle keys. Looking at all of them is dear, so it is done at most once in the time
    /// in which a busy key becomes idle.
    fn sweep(&self, keys: &mut Keys) {
        let now = Instant::now();
        if keys.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        keys.known.retain(|_, key| {
            Arc::strong_count(key) > 1
                || !key.lease.lock().is_idle(now.into_std())
                || !key.local.lock().is_idle(now.into_std())
        });
        keys.next_sweep = now.checked_add(self.inner.settings.lease_for);
    }
}

impl std::fmt::Debug for SharedRateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRateLimit")
            .field("limit", &self.inner.limit)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
