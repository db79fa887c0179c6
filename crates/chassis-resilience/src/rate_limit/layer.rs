//! The layers that put a rate limit on a service.
//!
//! All services that one layer makes share one limit.

use tower::Layer;

use super::{KeyedRateLimit, KeyedRateLimitService, RateLimit, RateLimitService, RateLimiter};

/// Puts one [`RateLimit`] on all calls.
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    limiter: RateLimiter,
}

impl RateLimitLayer {
    /// All calls together keep `limit`.
    pub fn new(limit: RateLimit) -> Self {
        Self::with(RateLimiter::new(limit))
    }

    /// A limiter that others use too.
    pub fn with(limiter: RateLimiter) -> Self {
        RateLimitLayer { limiter }
    }

    /// The limiter, for its numbers.
    pub fn handle(&self) -> RateLimiter {
        self.limiter.clone()
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::new(inner, self.limiter.clone())
    }
}

/// Puts a [`KeyedRateLimit`] on calls; a function finds the key of a request.
#[derive(Debug)]
pub struct KeyedRateLimitLayer<K, F> {
    limits: KeyedRateLimit<K>,
    key: F,
}

impl<K, F> KeyedRateLimitLayer<K, F> {
    /// The calls of each key keep `limits`. Requests for which `key` gives
    /// `None` are not limited.
    pub fn new(limits: KeyedRateLimit<K>, key: F) -> Self {
        KeyedRateLimitLayer { limits, key }
    }
}

impl<K, F: Clone> Clone for KeyedRateLimitLayer<K, F> {
    fn clone(&self) -> Self {
        KeyedRateLimitLayer { limits: self.limits.clone(), key: self.key.clone() }
    }
}

impl<K, F: Clone, S> Layer<S> for KeyedRateLimitLayer<K, F> {
    type Service = KeyedRateLimitService<S, K, F>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRateLimitService::new(inner, self.limits.clone(), self.key.clone())
    }
}
