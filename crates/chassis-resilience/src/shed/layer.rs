//! The layer that sheds load before a service.
//!
//! It stands outside everything that does work: what is shed must cost nothing.

use tower::Layer;

use super::{LoadShedService, Shedder};

/// Puts a [`Shedder`] before a service.
#[derive(Clone, Debug)]
pub struct LoadShedLayer<C, P> {
    shedder: Shedder,
    classify: C,
    priority: P,
}

impl<C, P> LoadShedLayer<C, P> {
    /// Sheds what `shedder` has no room for. `priority` says how important a request is,
    /// `classify` tells answers from failures, whose speed says nothing.
    pub fn new(shedder: Shedder, classify: C, priority: P) -> Self {
        LoadShedLayer { shedder, classify, priority }
    }
}

impl<C: Clone, P: Clone, S> Layer<S> for LoadShedLayer<C, P> {
    type Service = LoadShedService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShedService::new(
            inner,
            self.shedder.clone(),
            self.classify.clone(),
            self.priority.clone(),
        )
    }
}
