//! The layer that puts a bulkhead on a service.
//!
//! All services that one layer makes share one bulkhead.

use std::time::Duration;

use tower::Layer;

use super::{Bulkhead, BulkheadService, BulkheadSettings};

/// Puts a [`Bulkhead`] on a service.
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    bulkhead: Bulkhead,
}

impl BulkheadLayer {
    /// `max_concurrent` calls under way, as many waiting, each for `max_wait`.
    pub fn new(max_concurrent: usize, max_wait: Duration) -> Self {
        Self::with(Bulkhead::new(BulkheadSettings {
            max_concurrent,
            max_waiting: max_concurrent,
            max_wait,
        }))
    }

    /// A bulkhead that others use too.
    pub fn with(bulkhead: Bulkhead) -> Self {
        BulkheadLayer { bulkhead }
    }

    /// The bulkhead, for its numbers.
    pub fn handle(&self) -> Bulkhead {
        self.bulkhead.clone()
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::new(inner, self.bulkhead.clone())
    }
}
