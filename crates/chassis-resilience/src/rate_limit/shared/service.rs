//! The service that spends a token before each call.
//!
//! A call with a token in hand waits for nothing and allocates nothing.

use std::task::{Context, Poll};

use tower::Service;

use super::SharedRateLimit;
use crate::{BoxError, Detour};

/// Makes calls only within a [`SharedRateLimit`].
#[derive(Clone, Debug)]
pub struct SharedRateLimitService<S, F> {
    pub(super) inner: S,
    pub(super) limit: SharedRateLimit,
    pub(super) key: F,
}

impl<S, F, K, Req> Service<Req> for SharedRateLimitService<S, F>
where
    S: Service<Req, Future: Send> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send,
    F: Fn(&Req) -> Option<K>,
    K: AsRef<str> + Send + Sync + 'static,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let Some(key) = (self.key)(&request) else {
            return Detour::direct(self.inner.call(request));
        };
        match self.limit.try_check(key.as_ref()) {
            Some(Ok(())) => Detour::direct(self.inner.call(request)),
            Some(Err(refused)) => Detour::refused(refused),
            None => {
                // The one that is ready goes with the call, the copy stays.
                let copy = self.inner.clone();
                let mut service = std::mem::replace(&mut self.inner, copy);
                let limit = self.limit.clone();
                Detour::round(async move {
                    limit.ask(key.as_ref()).await?;
                    service.call(request).await.map_err(Into::into)
                })
            }
        }
    }
}

/// The answer, or [`RateLimited`](crate::rate_limit::RateLimited). Dropping it drops the inner
/// call, which stays counted.
pub type ResponseFuture<F, R> = Detour<F, R>;
