//! The service that asks the breaker before each call.
//!
//! The permit is taken in `call`, not in `poll_ready`: a service that is ready
//! but idle must not sit on one of the few probes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::{CircuitBreaker, CircuitOpen, Permit};
use crate::{BoxError, Class, Classify};

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
        let state = match self.breaker.try_acquire(started) {
            Ok(permit) => State::Calling {
                future: self.inner.call(request),
                permit: Some(permit),
                classify: self.classify.clone(),
                started,
            },
            Err(refused) => State::Refused { refused },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The answer, or [`CircuitOpen`]. Dropping it gives the permit back.
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F, C> {
        Calling {
            #[pin]
            future: F,
            permit: Option<Permit>,
            classify: C,
            started: Instant,
        },
        Refused { refused: CircuitOpen },
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T, E>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { refused } => Poll::Ready(Err((*refused).into())),
            StateProj::Calling { future, permit, classify, started } => {
                let result = ready!(future.poll(cx));
                if let Some(permit) = permit.take() {
                    match classify.classify(result.as_ref()) {
                        Class::Success => permit.success(started.elapsed()),
                        Class::Failure => permit.failure(started.elapsed()),
                        Class::Ignore => permit.ignore(),
                    }
                }
                Poll::Ready(result.map_err(Into::into))
            }
        }
    }
}
