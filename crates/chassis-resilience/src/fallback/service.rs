//! The service that has something in reserve.
//!
//! Only a call that fails costs an allocation.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{Answer, ResponseFuture, Substitute, layer::Counts};
use crate::{BoxError, Classify};

/// Answers with something less when the inner service fails.
#[derive(Clone, Debug)]
pub struct FallbackService<S, F, C> {
    pub(super) inner: S,
    pub(super) substitute: F,
    pub(super) classify: C,
    pub(super) counts: Arc<Counts>,
}

impl<S, F, C, Req> Service<Req> for FallbackService<S, F, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    F: Substitute<Req, S::Response>,
    C: Classify<S::Response, S::Error>,
{
    type Response = Answer<S::Response>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, Req, S::Response, F, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let kept = self.substitute.keep(&request);
        let future = self.inner.call(request);
        let substitute = self.substitute.clone();
        ResponseFuture::new(future, kept, substitute, self.classify.clone(), self.counts.clone())
    }
}
