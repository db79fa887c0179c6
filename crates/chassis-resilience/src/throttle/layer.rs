//! The layer that puts a throttle on a service.
//!
//! It takes the throttle as a handle, because it belongs to the callee.

use tower::Layer;

use super::{Throttle, ThrottleService};

/// Puts a [`Throttle`] on a service.
#[derive(Clone, Debug)]
pub struct ThrottleLayer<C> {
    throttle: Throttle,
    classify: C,
}

impl<C> ThrottleLayer<C> {
    /// Guards services with `throttle`; `classify` judges the answers.
    pub fn new(throttle: Throttle, classify: C) -> Self {
        ThrottleLayer { throttle, classify }
    }
}

impl<C: Clone, S> Layer<S> for ThrottleLayer<C> {
    type Service = ThrottleService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ThrottleService::new(inner, self.throttle.clone(), self.classify.clone())
    }
}
