//! The services that ask a limiter before each call.
//!
//! The question is asked in `call`: only there is the request known, and being
//! ready must not use up the rate.

use std::{
    future::Future,
    hash::Hash,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{KeyedRateLimit, RateLimited, RateLimiter};
use crate::BoxError;

/// Makes calls only within one limit.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    limiter: RateLimiter,
}

impl<S> RateLimitService<S> {
    /// Limits calls to `inner`.
    pub fn new(inner: S, limiter: RateLimiter) -> Self {
        RateLimitService { inner, limiter }
    }
}

impl<S, Req> Service<Req> for RateLimitService<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.limiter.check() {
            Ok(()) => ResponseFuture::calling(self.inner.call(request)),
            Err(refused) => ResponseFuture::refused(refused),
        }
    }
}

/// Makes calls only within the limit of their key.
#[derive(Debug)]
pub struct KeyedRateLimitService<S, K, F> {
    inner: S,
    limits: KeyedRateLimit<K>,
    key: F,
}

impl<S, K, F> KeyedRateLimitService<S, K, F> {
    /// Limits calls to `inner`; `key` finds the key of a request.
    pub fn new(inner: S, limits: KeyedRateLimit<K>, key: F) -> Self {
        KeyedRateLimitService { inner, limits, key }
    }
}

impl<S: Clone, K, F: Clone> Clone for KeyedRateLimitService<S, K, F> {
    fn clone(&self) -> Self {
        KeyedRateLimitService {
            inner: self.inner.clone(),
            limits: self.limits.clone(),
            key: self.key.clone(),
        }
    }
}

impl<S, K, F, Req> Service<Req> for KeyedRateLimitService<S, K, F>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    K: Eq + Hash,
    F: Fn(&Req) -> Option<K>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let checked = match (self.key)(&request) {
            Some(key) => self.limits.check(key),
            None => Ok(()),
        };
        match checked {
            Ok(()) => ResponseFuture::calling(self.inner.call(request)),
            Err(refused) => ResponseFuture::refused(refused),
        }
    }
}

pin_project! {
    /// The answer, or [`RateLimited`]. Dropping it drops the inner call, which
    /// stays counted.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Refused { refused: RateLimited },
    }
}

impl<F> ResponseFuture<F> {
    fn calling(future: F) -> Self {
        ResponseFuture { state: State::Calling { future } }
    }

    fn refused(refused: RateLimited) -> Self {
        ResponseFuture { state: State::Refused { refused } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => {
                Poll::Ready(ready!(future.poll(cx)).map_err(Into::into))
            }
            StateProj::Refused { refused } => Poll::Ready(Err((*refused).into())),
        }
    }
}
