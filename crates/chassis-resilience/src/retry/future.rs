//! One request with all its attempts.
//!
//! A state machine without allocation: call, wait, become ready, call again.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;

use super::{Retry, RetryPolicy};
use crate::BoxError;

pin_project! {
    /// The answer to the last attempt. Dropping it drops the attempt that is
    /// under way; what was taken from the budget is not given back, because the
    /// callee has had the load.
    pub struct ResponseFuture<P, S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future>,
        // What a further attempt needs; `None` if there will be none.
        spare: Option<(Req, Retry<P, S>)>,
        attempt: u32,
        // The callee has not looked at it once, and it was sent again for that.
        refused: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Waiting { #[pin] sleep: Sleep },
        Readying,
    }
}

impl<P, S, Req> ResponseFuture<P, S, Req>
where
    S: Service<Req>,
{
    pub(super) fn new(future: S::Future, spare: Option<(Req, Retry<P, S>)>) -> Self {
        ResponseFuture { state: State::Calling { future }, spare, attempt: 1, refused: false }
    }
}

impl<P, S, Req> Future for ResponseFuture<P, S, Req>
where
    P: RetryPolicy<Req, S::Response, BoxError>,
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let next = this.spare.as_ref().and_then(|(request, retry)| {
                        retry.next(*this.attempt, *this.refused, request, result.as_ref())
                    });
                    let Some(next) = next else {
                        return Poll::Ready(result);
                    };
                    if next.transparent {
                        *this.refused = true;
                    } else {
                        *this.attempt += 1;
                    }
                    let sleep = tokio::time::sleep(next.delay);
                    this.state.set(State::Waiting { sleep });
                }
                StateProj::Waiting { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(State::Readying);
                }
                StateProj::Readying => {
                    // Empty only if this future is polled after it has ended.
                    let Some((mut request, mut retry)) = this.spare.take() else {
                        return Poll::Pending;
                    };
                    match retry.inner.poll_ready(cx) {
                        Poll::Pending => {
                            *this.spare = Some((request, retry));
                            return Poll::Pending;
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Ready(Ok(())) => {}
                    }
                    let copy = if retry.needs_copy(*this.attempt, *this.refused) {
                        retry.policy.clone_request(&request)
                    } else {
                        None
                    };
                    if *this.attempt > 1 {
                        retry.policy.mark_attempt(&mut request, *this.attempt);
                    }
                    let future = retry.inner.call(request);
                    *this.spare = copy.map(|copy| (copy, retry));
                    this.state.set(State::Calling { future });
                }
            }
        }
    }
}

impl<P, S, Req> std::fmt::Debug for ResponseFuture<P, S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempt", &self.attempt)
            .field("can_retry", &self.spare.is_some())
            .finish()
    }
}
