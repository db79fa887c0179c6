//! The service that asks the breaker before each call.
//!
//! The permit is taken in `call`, not in `poll_ready`: a service that is ready
//! but idle must not sit on one of the few probes.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;
use tower::Service;

use super::{CircuitBreaker, Permit};
use crate::{BoxError, Class, Classify, Judged};

/// Makes calls only with a permit of its [`CircuitBreaker`].
#[derive(Clone, Debug)]
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
}

impl<S, C> CircuitBreakerService<S, C> {
    /// Guards `inner` with `breaker`; `classify` judges the answers.
    pub fn new(inner: S, breaker: CircuitBreaker, classify: C) -> Self {
        CircuitBreakerService { inner, breaker, classify }
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let result = ready!(self.inner.poll_ready(cx));
        // A callee that cannot be connected to often shows it here.
        if let Err(error) = &result
            && self.classify.classify(Err(error)) == Class::Failure
            && let Ok(permit) = self.breaker.try_acquire(Instant::now())
        {
            permit.failure(Duration::ZERO);
        }
        Poll::Ready(result.map_err(Into::into))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started = Instant::now();
        match self.breaker.try_acquire(started) {
            Ok(permit) => {
                let future = self.inner.call(request);
                Judged::calling(future, permit, self.classify.clone(), started)
            }
            Err(refused) => Judged::refused(refused),
        }
    }
}

/// The answer, or [`CircuitOpen`](super::CircuitOpen). Dropping it gives the permit back.
pub type ResponseFuture<F, C> = Judged<F, C, Permit>;
