//! The service that takes a place before each call.
//!
//! It takes it in `call`: a service that is ready but idle holds none.

use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::Service;

use super::{AdaptiveLimit, Place};
use crate::{BoxError, Classify, Judged};

/// Makes calls only with a place of its [`AdaptiveLimit`].
#[derive(Clone, Debug)]
pub struct AdaptiveService<S, C> {
    inner: S,
    limit: AdaptiveLimit,
    classify: C,
}

impl<S, C> AdaptiveService<S, C> {
    /// Guards `inner` with `limit`; `classify` judges the answers.
    pub fn new(inner: S, limit: AdaptiveLimit, classify: C) -> Self {
        AdaptiveService { inner, limit, classify }
    }
}

impl<S, C, Req> Service<Req> for AdaptiveService<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started = Instant::now();
        match self.limit.try_enter(started) {
            Ok(place) => {
                let future = self.inner.call(request);
                Judged::calling(future, place, self.classify.clone(), started)
            }
            Err(refused) => Judged::refused(refused),
        }
    }
}

/// The answer, or [`ConcurrencyLimited`](super::ConcurrencyLimited). Dropping it frees the
/// place.
pub type ResponseFuture<F, C> = Judged<F, C, Place>;
