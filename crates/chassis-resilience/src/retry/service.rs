//! The service that sends a request again.
//!
//! It needs its own copy of the inner service for each call, because a later
//! attempt waits for readiness while the caller already uses this service for
//! the next request.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;

use super::{Decision, ResponseFuture, RetryBudget, RetryPolicy, RetrySettings};
use crate::BoxError;

/// Retries calls to the inner service.
///
/// An error of `poll_ready` is never retried: by tower's contract, a service
/// that failed there is broken for good.
#[derive(Clone, Debug)]
pub struct Retry<P, S> {
    pub(super) policy: P,
    pub(super) settings: RetrySettings,
    pub(super) budget: RetryBudget,
    pub(super) inner: S,
}

impl<P, S> Retry<P, S> {
    /// The wait before the next attempt; `None` if the answer stands.
    pub(super) fn next_delay<Req, Res, E>(
        &self,
        attempt: u32,
        request: &Req,
        result: Result<&Res, &E>,
    ) -> Option<Duration>
    where
        P: RetryPolicy<Req, Res, E>,
    {
        if attempt >= self.settings.max_attempts {
            return None;
        }
        let (asked, pays) = match self.policy.decide(attempt, request, result) {
            Decision::Done => return None,
            Decision::Retry => (Duration::ZERO, true),
            Decision::RetryFree => (Duration::ZERO, false),
            Decision::RetryAfter(asked) if asked > self.settings.max_retry_after => return None,
            Decision::RetryAfter(asked) => (asked, true),
        };
        if pays && !self.budget.withdraw() {
            return None;
        }
        // The jitter comes on top of what the server asked for: it told
        // everybody the same number.
        Some(asked + self.settings.backoff.delay(attempt, fastrand::f64()))
    }
}

impl<P, S, Req> Service<Req> for Retry<P, S>
where
    P: RetryPolicy<Req, S::Response, S::Error>,
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<P, S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.budget.deposit();
        let copy =
            if self.settings.max_attempts > 1 { self.policy.clone_request(&request) } else { None };
        let future = self.inner.call(request);
        // Cloned after the call, so that the copy does not take the readiness
        // with it, and only for requests that may need it.
        ResponseFuture::new(future, copy.map(|request| (request, self.clone())))
    }
}
