//! The service that asks its callee only for what the cache does not have.
//!
//! A fetch needs a copy of the inner service, because it may outlive the call.

use std::{
    future::Future,
    hash::Hash,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tower::{Service, ServiceExt};

use super::{Cache, Cached, Freshness};
use crate::{BoxError, Class, Classify};

/// Answers from a [`Cache`].
#[derive(Debug)]
pub struct CacheService<S, K, V, F, C> {
    pub(super) inner: S,
    pub(super) cache: Cache<K, V>,
    pub(super) key: F,
    pub(super) classify: C,
}

impl<S: Clone, K, V, F: Clone, C: Clone> Clone for CacheService<S, K, V, F, C> {
    fn clone(&self) -> Self {
        CacheService {
            inner: self.inner.clone(),
            cache: self.cache.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<S, K, V, F, C, Req> Service<Req> for CacheService<S, K, V, F, C>
where
    S: Service<Req, Response = V, Future: Send> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(&Req) -> Option<K>,
    C: Classify<V, S::Error> + 'static,
    Req: Send + 'static,
{
    type Response = Cached<V>;
    type Error = BoxError;
    /// Dropping it leaves a fetch that has begun to the others that wait for it.
    type Future = Pin<Box<dyn Future<Output = Result<Cached<V>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Whether the callee is ready matters only to a fetch, which waits for it itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let call = self.inner.clone();
        let Some(key) = (self.key)(&request) else {
            return Box::pin(async move {
                let value = call.oneshot(request).await.map_err(Into::into)?;
                Ok(Cached { value, age: Duration::ZERO, freshness: Freshness::Uncached })
            });
        };
        let (cache, classify) = (self.cache.clone(), self.classify.clone());
        Box::pin(async move {
            let keep = move |value: &V| classify.classify(Ok(value)) == Class::Success;
            Ok(cache.get_or_fetch_if(key, move || call.oneshot(request), keep).await?)
        })
    }
}
