//! The three things that can stand in for an answer.
//!
//! Each is a few lines, so that a service can write its own beside them.

use std::{future::Future, hash::Hash, marker::PhantomData};

use super::{Degraded, Substitute};
use crate::{BoxError, cache::Cache};

/// The last good answer to the same question, out of a bounded [`Cache`], as long as its
/// settings let an old value stand in.
#[derive(Debug)]
pub struct LastGood<K, V, F> {
    cache: Cache<K, V>,
    key: F,
}

impl<K, V, F> LastGood<K, V, F> {
    /// Remembers good answers in `cache`. Requests for which `key` gives `None` have none.
    pub fn new(cache: Cache<K, V>, key: F) -> Self {
        LastGood { cache, key }
    }
}

impl<K, V, F: Clone> Clone for LastGood<K, V, F> {
    fn clone(&self) -> Self {
        LastGood { cache: self.cache.clone(), key: self.key.clone() }
    }
}

impl<K, V, F, Req> Substitute<Req, V> for LastGood<K, V, F>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(&Req) -> Option<K> + Clone + Send + Sync + 'static,
{
    type Kept = Option<K>;

    fn keep(&self, request: &Req) -> Option<K> {
        (self.key)(request)
    }

    fn answered(&self, key: &Option<K>, response: &V) {
        if let Some(key) = key {
            self.cache.insert(key.clone(), response.clone());
        }
    }

    fn substitute(
        &self,
        key: Option<K>,
    ) -> impl Future<Output = Option<(V, Degraded)>> + Send + 'static {
        let found = key.and_then(|key| self.cache.stand_in(&key));
        std::future::ready(found.map(|c| (c.value, Degraded::Cached { age: c.age })))
    }
}

/// An answer that is always right enough.
#[derive(Clone, Copy, Debug)]
pub struct Otherwise<F> {
    make: F,
}

impl<F> Otherwise<F> {
    /// Answers with what `make` gives.
    pub fn new(make: F) -> Self {
        Otherwise { make }
    }
}

impl<F, Req, Res> Substitute<Req, Res> for Otherwise<F>
where
    F: Fn() -> Res + Clone + Send + Sync + 'static,
    Res: Send + 'static,
{
    type Kept = ();

    fn keep(&self, _: &Req) {}

    fn substitute(&self, (): ()) -> impl Future<Output = Option<(Res, Degraded)>> + Send + 'static {
        std::future::ready(Some(((self.make)(), Degraded::Default)))
    }
}

/// The promise to do it later.
#[derive(Debug)]
pub struct Later<K, E, Kept> {
    keep: K,
    enqueue: E,
    kept: PhantomData<fn() -> Kept>,
}

impl<K, E, Kept> Later<K, E, Kept> {
    /// `keep` takes from a request what must be done later; `enqueue` writes that down where it
    /// is safe and gives the answer for the caller. If it fails, the callee's failure stands.
    pub fn new(keep: K, enqueue: E) -> Self {
        Later { keep, enqueue, kept: PhantomData }
    }
}

impl<K: Clone, E: Clone, Kept> Clone for Later<K, E, Kept> {
    fn clone(&self) -> Self {
        Later::new(self.keep.clone(), self.enqueue.clone())
    }
}

impl<K, E, Kept, Written, Req, Res> Substitute<Req, Res> for Later<K, E, Kept>
where
    K: Fn(&Req) -> Option<Kept> + Clone + Send + Sync + 'static,
    E: Fn(Kept) -> Written + Clone + Send + Sync + 'static,
    Written: Future<Output = Result<Res, BoxError>> + Send + 'static,
    Kept: Send + 'static,
    Res: Send + 'static,
{
    type Kept = Option<Kept>;

    fn keep(&self, request: &Req) -> Option<Kept> {
        (self.keep)(request)
    }

    fn substitute(
        &self,
        kept: Option<Kept>,
    ) -> impl Future<Output = Option<(Res, Degraded)>> + Send + 'static {
        let writing = kept.map(&self.enqueue);
        async move { Some((writing?.await.ok()?, Degraded::Queued)) }
    }
}
