//! The service that takes a place before each call.
//!
//! The place is taken by the call, not by `poll_ready`: a service that is ready
//! but idle must not hold one. Only a call that has to wait costs an allocation.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Bulkhead, BulkheadFull, Slot};
use crate::BoxError;

/// Makes calls only with a place in its [`Bulkhead`].
#[derive(Clone, Debug)]
pub struct BulkheadService<S> {
    inner: S,
    bulkhead: Bulkhead,
}

impl<S> BulkheadService<S> {
    /// Guards `inner` with `bulkhead`.
    pub fn new(inner: S, bulkhead: Bulkhead) -> Self {
        BulkheadService { inner, bulkhead }
    }
}

impl<S, Req> Service<Req> for BulkheadService<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let state = if let Some(slot) = self.bulkhead.try_enter() {
            State::Calling { future: self.inner.call(request), slot: Some(slot) }
        } else {
            match self.bulkhead.queue() {
                Err(refused) => State::Refused { refused },
                Ok(waiter) => {
                    // The one that is ready goes with the call, the copy stays.
                    let copy = self.inner.clone();
                    let service = std::mem::replace(&mut self.inner, copy);
                    State::Waiting {
                        place: Box::pin(waiter.wait()),
                        call: Some((service, request)),
                    }
                }
            }
        };
        ResponseFuture { state }
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<Slot, BulkheadFull>> + Send>>;

pin_project! {
    /// The answer, or [`BulkheadFull`]. Dropping it frees the place, or leaves
    /// the queue.
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, S::Future, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, Req> {
        Waiting { place: Wait, call: Option<(S, Req)> },
        Calling { #[pin] future: F, slot: Option<Slot> },
        Refused { refused: BulkheadFull },
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused { refused } => return Poll::Ready(Err((*refused).into())),
                StateProj::Calling { future, slot } => {
                    let result = ready!(future.poll(cx));
                    // Now, not when the caller gets round to dropping this.
                    slot.take();
                    return Poll::Ready(result.map_err(Into::into));
                }
                StateProj::Waiting { place, call } => {
                    let next = match (ready!(place.as_mut().poll(cx)), call.take()) {
                        (Ok(slot), Some((mut service, request))) => {
                            State::Calling { future: service.call(request), slot: Some(slot) }
                        }
                        // The call is there until its place is found.
                        (Ok(_), None) => return Poll::Pending,
                        (Err(refused), _) => State::Refused { refused },
                    };
                    this.state.set(next);
                }
            }
        }
    }
}

impl<S, Req> std::fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Waiting { .. } => "ResponseFuture(waiting)",
            State::Calling { .. } => "ResponseFuture(calling)",
            State::Refused { .. } => "ResponseFuture(refused)",
        })
    }
}
