//! The outermost layer: nothing below it outlives the deadline of the call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use chassis_core::{BoxError, Error};
use http::Request;
use tokio::time::Sleep;
use tower::{Layer, Service};

use super::payload::Payload;

/// Applies the deadline of a [`Payload`].
#[derive(Clone, Copy, Debug)]
pub(super) struct WithDeadlineLayer;

impl<S> Layer<S> for WithDeadlineLayer {
    type Service = WithDeadline<S>;

    fn layer(&self, inner: S) -> WithDeadline<S> {
        WithDeadline { inner }
    }
}

/// The service of [`WithDeadlineLayer`].
#[derive(Clone, Debug)]
pub(super) struct WithDeadline<S> {
    inner: S,
}

impl<S> Service<Request<Payload>> for WithDeadline<S>
where
    S: Service<Request<Payload>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Bounded<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        match request.body().deadline() {
            Some(deadline) => match deadline.check() {
                Ok(()) => Bounded::Running {
                    inner: self.inner.call(request),
                    sleep: Some(tokio::time::sleep_until(deadline.instant())),
                },
                Err(late) => Bounded::Refused { late: Some(late) },
            },
            None => Bounded::Running { inner: self.inner.call(request), sleep: None },
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer, or `DEADLINE_EXCEEDED`. Dropping it cancels the call.
    #[project = BoundedProjection]
    pub(super) enum Bounded<F> {
        Running { #[pin] inner: F, #[pin] sleep: Option<Sleep> },
        Refused { late: Option<Error> },
    }
}

impl<F, T> Future for Bounded<F>
where
    F: Future<Output = Result<T, BoxError>>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            BoundedProjection::Running { inner, sleep } => {
                if let Poll::Ready(result) = inner.poll(cx) {
                    return Poll::Ready(result);
                }
                match sleep.as_pin_mut() {
                    Some(sleep) => ready!(sleep.poll(cx)),
                    None => return Poll::Pending,
                }
                Poll::Ready(Err(super::error::deadline_exceeded().into()))
            }
            BoundedProjection::Refused { late } => match late.take() {
                Some(late) => Poll::Ready(Err(late.into())),
                None => Poll::Pending,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis_core::Deadline;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn request(time: Duration) -> Request<Payload> {
        let mut request = Request::new(Payload::whole("x".into()));
        request.body_mut().set_deadline(Some(Deadline::after(time)));
        request
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_ends_with_its_deadline() {
        let slow = service_fn(|_: Request<Payload>| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, BoxError>(7)
        });
        let bounded = WithDeadlineLayer.layer(slow);
        let error = bounded.clone().oneshot(request(Duration::from_secs(1))).await.unwrap_err();
        assert_eq!(error.downcast::<Error>().unwrap().reason(), "DEADLINE_EXCEEDED");
        assert_eq!(bounded.oneshot(request(Duration::from_secs(3))).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_left_is_not_begun() {
        let never = service_fn(|_: Request<Payload>| async { Err::<(), BoxError>("begun".into()) });
        let error =
            WithDeadlineLayer.layer(never).oneshot(request(Duration::ZERO)).await.unwrap_err();
        assert!(error.downcast::<Error>().unwrap().was_not_sent());
    }
}
