//! The body of an answer, watched until its trailers.
//!
//! It is polled inside the call's context, so that a stream which logs or calls
//! others while it is read still belongs to the call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use chassis_core::Code;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::outcome::Outcome;
use super::record::Record;

/// A body that ends its call's record.
pub(crate) struct Watched {
    inner: Body,
    record: Record,
}

impl Watched {
    pub(crate) fn new(inner: Body, record: Record) -> Watched {
        Watched { inner, record }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Watched { inner, record } = self.get_mut();
        let poll = poll_fn(|cx| Pin::new(&mut *inner).poll_frame(cx));
        let next = ready!(pin!(record.ctx.clone().scope(poll)).poll(cx));
        match &next {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let outcome = Outcome::of_headers(trailers);
                    record.end(&outcome.unwrap_or_else(no_status));
                }
            }
            Some(Err(status)) => record.end(&Outcome::of_status(status)),
            None => record.end(&no_status()),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn no_status() -> Outcome {
    Outcome::failed(Code::Unknown, "the answer ended without a status")
}
