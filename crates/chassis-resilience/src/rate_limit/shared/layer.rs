//! The layer that puts a shared limit on a service.
//!
//! A function finds the key of a request, as for the limit of one process.

use tower::Layer;

use super::{SharedRateLimit, SharedRateLimitService};

/// Puts a [`SharedRateLimit`] on calls.
#[derive(Clone, Debug)]
pub struct SharedRateLimitLayer<F> {
    limit: SharedRateLimit,
    key: F,
}

impl<F> SharedRateLimitLayer<F> {
    /// The calls of each key keep `limit`. Requests for which `key` gives `None` are not
    /// limited.
    pub fn new(limit: SharedRateLimit, key: F) -> Self {
        SharedRateLimitLayer { limit, key }
    }
}

impl<F: Clone, S> Layer<S> for SharedRateLimitLayer<F> {
    type Service = SharedRateLimitService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        SharedRateLimitService { inner, limit: self.limit.clone(), key: self.key.clone() }
    }
}
