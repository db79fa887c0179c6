//! The future of a call that somebody keeps an account of.
//!
//! Breaker, throttle and concurrency limit all do the same around a call: refuse it at once, or
//! let it through and be told how it ended. What differs is the account.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{BoxError, Class, Classify};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the answer means.
    pub class: Class,
    /// How long it took.
    pub latency: Duration,
    /// For how long the callee asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    /// Judges the answer to a call that began at `started` and ends now.
    pub fn new<T, E>(
        classify: &impl Classify<T, E>,
        result: Result<&T, &E>,
        started: Instant,
    ) -> Self {
        let class = classify.classify(result);
        let retry_after = if class == Class::Success { None } else { classify.retry_after(result) };
        Verdict { class, latency: started.elapsed(), retry_after }
    }
}

/// Leave to make one call, which wants to know how it ended. Dropping it means that nobody
/// waited for the answer.
pub trait Settle {
    /// Says how the call ended.
    fn settle(self, verdict: Verdict);
}

/// A call that nobody keeps an account of.
impl<A: Settle> Settle for Option<A> {
    fn settle(self, verdict: Verdict) {
        if let Some(account) = self {
            account.settle(verdict);
        }
    }
}

pin_project! {
    /// The answer, or the error of the layer that refused the call. Dropping it gives back what
    /// the call was holding.
    #[derive(Debug)]
    pub struct Judged<F, C, A> {
        #[pin]
        state: State<F, C, A>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F, C, A> {
        Calling { #[pin] future: F, account: Option<A>, classify: C, started: Instant },
        Refused { error: Option<BoxError> },
    }
}

impl<F, C, A> Judged<F, C, A> {
    pub(crate) fn calling(future: F, account: A, classify: C, started: Instant) -> Self {
        Judged { state: State::Calling { future, account: Some(account), classify, started } }
    }

    pub(crate) fn refused(error: impl Into<BoxError>) -> Self {
        Judged { state: State::Refused { error: Some(error.into()) } }
    }
}

impl<F, C, A, T, E> Future for Judged<F, C, A>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T, E>,
    A: Settle,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // Polled after it has ended.
                None => Poll::Pending,
            },
            StateProj::Calling { future, account, classify, started } => {
                let result = ready!(future.poll(cx));
                // Taken first: a classifier that panics drops the account.
                if let Some(account) = account.take() {
                    account.settle(Verdict::new(classify, result.as_ref(), *started));
                }
                Poll::Ready(result.map_err(Into::into))
            }
        }
    }
}
