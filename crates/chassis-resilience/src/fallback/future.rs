//! One call, and what stands in for its answer.
//!
//! The failure is kept while the substitute is looked for: it stands if there is none.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{Answer, Degraded, Substitute, layer::Counts};
use crate::{BoxError, Class, Classify};

type Substituting<T> = Pin<Box<dyn Future<Output = Option<(T, Degraded)>> + Send>>;

pin_project! {
    /// The answer, or what stands in for it. Dropping it drops the call, and gives up a
    /// substitute that is still being made.
    pub struct ResponseFuture<Fut, Req, T, F, C>
    where
        F: Substitute<Req, T>,
    {
        #[pin]
        state: State<Fut, T, F::Kept>,
        substitute: F,
        classify: C,
        counts: Arc<Counts>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Fut, T, Kept> {
        Calling { #[pin] future: Fut, kept: Option<Kept> },
        Substituting { future: Substituting<T>, failure: Option<Result<T, BoxError>> },
    }
}

impl<Fut, Req, T, F, C> ResponseFuture<Fut, Req, T, F, C>
where
    F: Substitute<Req, T>,
{
    pub(super) fn new(
        future: Fut,
        kept: F::Kept,
        substitute: F,
        classify: C,
        counts: Arc<Counts>,
    ) -> Self {
        let state = State::Calling { future, kept: Some(kept) };
        ResponseFuture { state, substitute, classify, counts }
    }
}

impl<Fut, Req, T, E, F, C> Future for ResponseFuture<Fut, Req, T, F, C>
where
    Fut: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    F: Substitute<Req, T>,
    C: Classify<T, E>,
{
    type Output = Result<Answer<T>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let own = |value| Answer { value, degraded: None };
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { future, kept } => {
                    let result = ready!(future.poll(cx));
                    let class = this.classify.classify(result.as_ref());
                    let Some(kept) = kept.take() else {
                        return Poll::Pending;
                    };
                    if let (Class::Success, Ok(response)) = (class, &result) {
                        this.substitute.answered(&kept, response);
                    }
                    let result = result.map_err(Into::into);
                    if matches!(class, Class::Success | Class::Ignore) {
                        return Poll::Ready(result.map(own));
                    }
                    let future = Box::pin(this.substitute.substitute(kept));
                    this.state.set(State::Substituting { future, failure: Some(result) });
                }
                StateProj::Substituting { future, failure } => {
                    let found = ready!(future.as_mut().poll(cx));
                    this.counts.count(found.as_ref().map(|(_, degraded)| degraded));
                    return match (found, failure.take()) {
                        (Some((value, degraded)), _) => {
                            Poll::Ready(Ok(Answer { value, degraded: Some(degraded) }))
                        }
                        (None, Some(failure)) => Poll::Ready(failure.map(own)),
                        // Polled after it has ended.
                        (None, None) => Poll::Pending,
                    };
                }
            }
        }
    }
}
