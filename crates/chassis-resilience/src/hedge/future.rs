//! The race of one call and its copy.
//!
//! Both live in this one future, so that whoever wins drops the other at once and a caller
//! who leaves drops both.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;

use super::{HedgePolicy, handle::Watch};
use crate::{BoxError, retry::RetryBudget};

pin_project! {
    /// The first answer that settles the call. Dropping it drops both attempts; what was taken
    /// from the budget is not given back, because the callee has had the load.
    pub struct ResponseFuture<P, S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        first: Option<S::Future>,
        #[pin]
        copy: Copy<S, S::Future, Req>,
        policy: P,
        budget: RetryBudget,
        watch: Watch,
    }
}

pin_project! {
    #[project = CopyProj]
    enum Copy<S, F, Req> {
        // There is none, or there will be none any more.
        None,
        Waiting { #[pin] delay: Sleep, spare: Option<(Req, S)> },
        Readying { spare: Option<(Req, S)> },
        Calling { #[pin] future: F },
    }
}

impl<P, S, Req> ResponseFuture<P, S, Req>
where
    S: Service<Req>,
{
    pub(super) fn new(
        first: S::Future,
        spare: Option<(Duration, Req, S)>,
        policy: P,
        budget: RetryBudget,
        watch: Watch,
    ) -> Self {
        let copy = match spare {
            None => Copy::None,
            Some((delay, request, service)) => {
                Copy::Waiting { delay: tokio::time::sleep(delay), spare: Some((request, service)) }
            }
        };
        ResponseFuture { first: Some(first), copy, policy, budget, watch }
    }
}

impl<P, S, Req> Future for ResponseFuture<P, S, Req>
where
    P: HedgePolicy<Req, S::Response, S::Error>,
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            this.first.set(None);
            let settles = this.policy.settles(result.as_ref());
            if settles {
                this.watch.answered();
            } else {
                this.watch.failed();
            }
            let raced = matches!(*this.copy, Copy::Readying { .. } | Copy::Calling { .. });
            if settles || !raced {
                this.copy.set(Copy::None);
                return Poll::Ready(result.map_err(Into::into));
            }
        }
        loop {
            let next = match this.copy.as_mut().project() {
                CopyProj::None => return Poll::Pending,
                CopyProj::Waiting { delay, spare } => {
                    ready!(delay.poll(cx));
                    let paid = this.budget.withdraw();
                    this.watch.late(paid);
                    if paid { Copy::Readying { spare: spare.take() } } else { Copy::None }
                }
                CopyProj::Readying { spare } => match spare.take() {
                    None => Copy::None,
                    Some((request, mut service)) => match service.poll_ready(cx) {
                        Poll::Pending => {
                            *spare = Some((request, service));
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(())) => Copy::Calling { future: service.call(request) },
                        Poll::Ready(Err(error)) if this.first.is_none() => {
                            return Poll::Ready(Err(error.into()));
                        }
                        Poll::Ready(Err(_)) => Copy::None,
                    },
                },
                CopyProj::Calling { future } => {
                    let result = ready!(future.poll(cx));
                    let settles = this.policy.settles(result.as_ref());
                    if settles {
                        this.watch.copy_won();
                    }
                    if settles || this.first.is_none() {
                        this.copy.set(Copy::None);
                        this.first.set(None);
                        return Poll::Ready(result.map_err(Into::into));
                    }
                    Copy::None
                }
            };
            this.copy.set(next);
        }
    }
}

impl<P, S, Req> std::fmt::Debug for ResponseFuture<P, S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("watch", &self.watch).finish_non_exhaustive()
    }
}
