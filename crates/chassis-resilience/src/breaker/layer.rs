//! The layer that puts a breaker on a service.
//!
//! It takes the breaker as a handle, because the breaker belongs to the callee
//! and outlives any one stack of layers.

use tower::Layer;

use super::{CircuitBreaker, CircuitBreakerService};

/// Puts a [`CircuitBreaker`] on a service.
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C> {
    breaker: CircuitBreaker,
    classify: C,
}

impl<C> CircuitBreakerLayer<C> {
    /// Guards services with `breaker`; `classify` judges the answers.
    pub fn new(breaker: CircuitBreaker, classify: C) -> Self {
        CircuitBreakerLayer { breaker, classify }
    }
}

impl<C: Clone, S> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService::new(inner, self.breaker.clone(), self.classify.clone())
    }
}
