//! The layer that lets chaos at a service.
//!
//! It stands next to the call, inside all the layers that should notice.

use tower::Layer;

use super::{Chaos, ChaosService};

/// Puts [`Chaos`] into a service.
#[derive(Clone, Debug)]
pub struct ChaosLayer<T, D> {
    chaos: Chaos,
    target: T,
    copy: D,
}

impl<T, D> ChaosLayer<T, D> {
    /// Asks `chaos` about each call. `target` names what is called, and is only asked while
    /// there are rules; `copy` gives a second request for a duplicate, or `None`.
    pub fn new(chaos: Chaos, target: T, copy: D) -> Self {
        ChaosLayer { chaos, target, copy }
    }
}

impl<T: Clone, D: Clone, S> Layer<S> for ChaosLayer<T, D> {
    type Service = ChaosService<S, T, D>;

    fn layer(&self, inner: S) -> Self::Service {
        ChaosService {
            inner,
            chaos: self.chaos.clone(),
            target: self.target.clone(),
            copy: self.copy.clone(),
        }
    }
}
