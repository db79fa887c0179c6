//! The service that asks the shedder before each request.
//!
//! It asks in `call`, where the request is known.

use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::Service;

use super::{Priority, Shedder};
use crate::{BoxError, Classify, Judged, adaptive::Place};

/// Lets in only what its [`Shedder`] has room for.
#[derive(Clone, Debug)]
pub struct LoadShedService<S, C, P> {
    inner: S,
    shedder: Shedder,
    classify: C,
    priority: P,
}

impl<S, C, P> LoadShedService<S, C, P> {
    /// Guards `inner` with `shedder`.
    pub fn new(inner: S, shedder: Shedder, classify: C, priority: P) -> Self {
        LoadShedService { inner, shedder, classify, priority }
    }
}

impl<S, C, P, Req> Service<Req> for LoadShedService<S, C, P>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error>,
    P: Fn(&Req) -> Priority,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started = Instant::now();
        match self.shedder.try_enter((self.priority)(&request), started) {
            Ok(place) => {
                let future = self.inner.call(request);
                Judged::calling(future, place, self.classify.clone(), started)
            }
            Err(shed) => Judged::refused(shed),
        }
    }
}

/// The answer, or [`Shed`](super::Shed). Dropping it frees the place.
pub type ResponseFuture<F, C> = Judged<F, C, Option<Place>>;
