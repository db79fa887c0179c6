//! The layer that puts a measured limit on a service.
//!
//! All services that one layer makes share one limit.

use tower::Layer;

use super::{AdaptiveLimit, AdaptiveService};

/// Puts an [`AdaptiveLimit`] on a service.
#[derive(Clone, Debug)]
pub struct AdaptiveLayer<C> {
    limit: AdaptiveLimit,
    classify: C,
}

impl<C> AdaptiveLayer<C> {
    /// Guards services with `limit`; `classify` tells answers from failures, whose speed says
    /// nothing.
    pub fn new(limit: AdaptiveLimit, classify: C) -> Self {
        AdaptiveLayer { limit, classify }
    }
}

impl<C: Clone, S> Layer<S> for AdaptiveLayer<C> {
    type Service = AdaptiveService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        AdaptiveService::new(inner, self.limit.clone(), self.classify.clone())
    }
}
