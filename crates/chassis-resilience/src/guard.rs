//! The layer and the service of everything that lets a call through or refuses it at once, and
//! wants to know how it ended.
//!
//! Breaker, throttle, concurrency limit and shedder are one shape around a call; what differs
//! is the guard. It is asked in `call` and not in `poll_ready`: a service that is ready but idle
//! holds no place, takes no probe and is no request.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{BoxError, Class, Classify, Judged, Settle};

/// Lets calls through or refuses them. Clones are the same guard.
pub trait Guard<Req>: Clone {
    /// What keeps an account of a call that was let through.
    type Account: Settle;
    /// Why a call was refused.
    type Refused: Into<BoxError>;

    /// Asks to make a call at `now`.
    ///
    /// # Errors
    /// The call must not be made.
    fn enter(&self, request: &Req, now: Instant) -> Result<Self::Account, Self::Refused>;

    /// The callee failed before there was a call to it, as one that cannot be connected to
    /// often does.
    fn failed_unasked(&self) {}
}

/// Puts a [`Guard`] before a service. All services that one layer makes share the guard.
#[derive(Clone, Debug)]
pub struct GuardLayer<G, C> {
    guard: G,
    classify: C,
}

impl<G, C> GuardLayer<G, C> {
    /// Guards services with `guard`; `classify` judges the answers.
    pub fn new(guard: G, classify: C) -> Self {
        GuardLayer { guard, classify }
    }
}

impl<G: Clone, C: Clone, S> Layer<S> for GuardLayer<G, C> {
    type Service = Guarded<S, G, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded::new(inner, self.guard.clone(), self.classify.clone())
    }
}

/// Makes only the calls that its [`Guard`] lets through.
#[derive(Clone, Debug)]
pub struct Guarded<S, G, C> {
    inner: S,
    guard: G,
    classify: C,
}

impl<S, G, C> Guarded<S, G, C> {
    /// Guards `inner` with `guard`; `classify` judges the answers.
    pub fn new(inner: S, guard: G, classify: C) -> Self {
        Guarded { inner, guard, classify }
    }
}

impl<S, G, C, Req> Service<Req> for Guarded<S, G, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    G: Guard<Req>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Judged<S::Future, C, G::Account>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let result = ready!(self.inner.poll_ready(cx));
        if let Err(error) = &result
            && matches!(self.classify.classify(Err(error)), Class::Failure | Class::Unreachable)
        {
            self.guard.failed_unasked();
        }
        Poll::Ready(result.map_err(Into::into))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let started = Instant::now();
        match self.guard.enter(&request, started) {
            Ok(account) => {
                let future = self.inner.call(request);
                Judged::calling(future, account, self.classify.clone(), started)
            }
            Err(refused) => Judged::refused(refused),
        }
    }
}
