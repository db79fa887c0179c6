//! The service that sends a request again.
//!
//! It needs its own copy of the inner service for each call, because a later
//! attempt waits for readiness while the caller already uses this service for
//! the next request.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tower::Service;

use super::{Decision, ResponseFuture, RetryBudget, RetryPolicy, RetrySettings};
use crate::{BoxError, is_local_rejection};

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

/// A further attempt.
pub(super) struct Next {
    pub(super) delay: Duration,
    /// It does not count as an attempt.
    pub(super) transparent: bool,
}

impl<P, S> Retry<P, S> {
    /// The next attempt; `None` if the answer stands. `refused` tells whether this
    /// request was sent again before because the callee had not looked at it.
    pub(super) fn next<Req, Res>(
        &self,
        attempt: u32,
        refused: bool,
        request: &Req,
        result: Result<&Res, &BoxError>,
    ) -> Option<Next>
    where
        P: RetryPolicy<Req, Res, BoxError>,
    {
        if result.is_err_and(|error| is_local_rejection(&**error)) {
            return None;
        }
        let decision = self.policy.decide(attempt, request, result);
        let unseen = matches!(decision, Decision::Refused | Decision::RetryFree);
        let transparent = unseen && !refused;
        if attempt >= self.settings.max_attempts && !transparent {
            return None;
        }
        let (asked, pays) = match decision {
            Decision::Done => return None,
            Decision::Retry | Decision::Refused => (Duration::ZERO, true),
            Decision::RetryFree => (Duration::ZERO, false),
            Decision::RetryAfter(asked) if asked > self.settings.max_retry_after => return None,
            Decision::RetryAfter(asked) => (asked, true),
        };
        // The jitter comes on top of what the server asked for: it told
        // everybody the same number.
        let backoff = || asked + self.settings.backoff.delay(attempt, fastrand::f64());
        let delay = if transparent { Duration::ZERO } else { backoff() };
        // The answer that is there is better than none.
        let begins = Instant::now().checked_add(delay);
        let deadline = self.policy.deadline(request);
        if deadline.is_some_and(|deadline| begins.is_none_or(|begins| begins >= deadline)) {
            return None;
        }
        if pays && !transparent && !self.budget.withdraw() {
            return None;
        }
        Some(Next { delay, transparent })
    }

    /// Whether a copy of the request is of any use for a further attempt.
    pub(super) fn needs_copy(&self, attempt: u32, refused: bool) -> bool {
        attempt < self.settings.max_attempts || !refused
    }
}

impl<P, S, Req> Service<Req> for Retry<P, S>
where
    P: RetryPolicy<Req, S::Response, BoxError>,
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
            if self.needs_copy(1, false) { self.policy.clone_request(&request) } else { None };
        let future = self.inner.call(request);
        // Cloned after the call, so that the copy does not take the readiness
        // with it, and only for requests that may need it.
        ResponseFuture::new(future, copy.map(|request| (request, self.clone())))
    }
}
