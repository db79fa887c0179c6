//! The service that asks the throttle before each call.
//!
//! It asks in `call`: being ready is no request.

use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::Service;

use super::{Throttle, ThrottlePermit};
use crate::{BoxError, Classify, Judged};

/// Makes calls only with leave of its [`Throttle`].
#[derive(Clone, Debug)]
pub struct ThrottleService<S, C> {
    inner: S,
    throttle: Throttle,
    classify: C,
}

impl<S, C> ThrottleService<S, C> {
    /// Guards `inner` with `throttle`; `classify` judges the answers.
    pub fn new(inner: S, throttle: Throttle, classify: C) -> Self {
        ThrottleService { inner, throttle, classify }
    }
}

impl<S, C, Req> Service<Req> for ThrottleService<S, C>
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
        match self.throttle.try_acquire(started) {
            Ok(permit) => {
                let future = self.inner.call(request);
                Judged::calling(future, permit, self.classify.clone(), started)
            }
            Err(refused) => Judged::refused(refused),
        }
    }
}

/// The answer, or [`Throttled`](super::Throttled). Dropping it drops the inner call, which is
/// not counted.
pub type ResponseFuture<F, C> = Judged<F, C, ThrottlePermit>;
