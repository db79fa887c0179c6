//! The layer that sheds load before a service.
//!
//! It stands outside everything that does work: what is shed must cost nothing.

use tokio::time::Instant;
use tower::Layer;

use super::{Priority, Shed, Shedder};
use crate::{Guard, GuardLayer, Guarded, adaptive::Place};

/// A [`Shedder`], and how important a request is to it.
#[derive(Clone, Debug)]
pub struct ByPriority<P> {
    shedder: Shedder,
    priority: P,
}

impl<Req, P: Fn(&Req) -> Priority + Clone> Guard<Req> for ByPriority<P> {
    type Account = Option<Place>;
    type Refused = Shed;

    fn enter(&self, request: &Req, now: Instant) -> Result<Option<Place>, Shed> {
        self.shedder.try_enter((self.priority)(request), now)
    }
}

/// Puts a [`Shedder`] before a service.
#[derive(Clone, Debug)]
pub struct LoadShedLayer<C, P>(GuardLayer<ByPriority<P>, C>);

/// Lets in only what its [`Shedder`] has room for. Dropping a call frees its place.
pub type LoadShedService<S, C, P> = Guarded<S, ByPriority<P>, C>;

impl<C, P> LoadShedLayer<C, P> {
    /// Sheds what `shedder` has no room for. `priority` says how important a request is,
    /// `classify` tells answers from failures, whose speed says nothing.
    pub fn new(shedder: Shedder, classify: C, priority: P) -> Self {
        LoadShedLayer(GuardLayer::new(ByPriority { shedder, priority }, classify))
    }
}

impl<C: Clone, P: Clone, S> Layer<S> for LoadShedLayer<C, P> {
    type Service = LoadShedService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}
