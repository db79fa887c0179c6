//! The layer that puts a cache before a service.
//!
//! It takes the cache as a handle, so that whoever changes a value can remove it.

use tower::Layer;

use super::{Cache, CacheService};

/// Puts a [`Cache`] before a service.
#[derive(Debug)]
pub struct CacheLayer<K, V, F, C> {
    cache: Cache<K, V>,
    key: F,
    classify: C,
}

impl<K, V, F, C> CacheLayer<K, V, F, C> {
    /// Answers from `cache`. Requests for which `key` gives `None` pass; only answers that
    /// `classify` calls a success are kept.
    pub fn new(cache: Cache<K, V>, key: F, classify: C) -> Self {
        CacheLayer { cache, key, classify }
    }
}

impl<K, V, F: Clone, C: Clone> Clone for CacheLayer<K, V, F, C> {
    fn clone(&self) -> Self {
        CacheLayer {
            cache: self.cache.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<K, V, F: Clone, C: Clone, S> Layer<S> for CacheLayer<K, V, F, C> {
    type Service = CacheService<S, K, V, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService {
            inner,
            cache: self.cache.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}
