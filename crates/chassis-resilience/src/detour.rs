//! The future of a call that now and then goes a longer way.
//!
//! Most calls need nothing from their layer and are the inner future itself. Where a layer has
//! to wait before the call or do something around it, it writes that as an `async` block, and
//! only such a call is allocated.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::BoxError;

type Way<R> = Pin<Box<dyn Future<Output = Result<R, BoxError>> + Send>>;

pin_project! {
    /// The answer. Dropping it drops the call.
    pub struct Detour<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        Direct { #[pin] future: F },
        Round { way: Way<R> },
        Refused { error: Option<BoxError> },
    }
}

impl<F, R> Detour<F, R> {
    pub(crate) fn direct(future: F) -> Self {
        Detour { state: State::Direct { future } }
    }

    pub(crate) fn round(way: impl Future<Output = Result<R, BoxError>> + Send + 'static) -> Self {
        Detour { state: State::Round { way: Box::pin(way) } }
    }

    pub(crate) fn refused(error: impl Into<BoxError>) -> Self {
        Detour { state: State::Refused { error: Some(error.into()) } }
    }
}

impl<F, R, E> Future for Detour<F, R>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Direct { future } => {
                Poll::Ready(ready!(future.poll(cx)).map_err(Into::into))
            }
            StateProj::Round { way } => way.as_mut().poll(cx),
            StateProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // Polled after it has ended.
                None => Poll::Pending,
            },
        }
    }
}

impl<F, R> std::fmt::Debug for Detour<F, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Direct { .. } => "Detour(direct)",
            State::Round { .. } => "Detour(round)",
            State::Refused { .. } => "Detour(refused)",
        })
    }
}
