//! The layer that puts a timeout on a service.
//!
//! Apart from the service, so that a stack can be described before it is built.

use std::time::Duration;

use tower::Layer;

use super::Timeout;

/// Puts a [`Timeout`] on a service.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    after: Duration,
}

impl TimeoutLayer {
    /// Each call may take `after`. Zero fails every call that is not ready at once.
    pub fn new(after: Duration) -> Self {
        TimeoutLayer { after }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.after)
    }
}
