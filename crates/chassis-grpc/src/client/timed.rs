//! A body that ends at the call's deadline.
//!
//! The deadline holds for the whole call, as gRPC says, not only until the first
//! byte: a server that sends headers and then nothing must not hold us.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use chassis_core::{Deadline, Error};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::IntoStatus;

pin_project! {
    pub(super) struct Timed {
        #[pin]
        inner: Body,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timed {
    pub(super) fn new(inner: Body, deadline: Option<Deadline>) -> Timed {
        Timed {
            inner,
            sleep: deadline.map(|deadline| tokio::time::sleep_until(deadline.instant())),
        }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let late = this.sleep.as_mut().as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready());
        if !late {
            return Poll::Pending;
        }
        let message = "the answer was not complete before the deadline of the call";
        let error = Error::deadline_exceeded("DEADLINE_EXCEEDED", message);
        Poll::Ready(Some(Err(error.into_status())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
