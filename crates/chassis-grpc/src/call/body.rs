//! The body of an answer, watched until its trailers and until the deadline.
//!
//! One wrapper for both, because each wrapper is an allocation and a call through a table for
//! every frame. On the serving side it is polled inside the call's context, so that a stream
//! which logs or calls others while it is read still belongs to the call. On both sides the
//! caller's deadline holds for the whole call, as gRPC says, not only until the first byte: a
//! server that sends headers and then nothing must not hold us, and a stream that nobody waits
//! for any more must not hold the server. Messages are counted here, and those that are too large
//! refused.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use chassis_core::{Code, Deadline, Error};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tonic::Status;

use super::framing::{Framing, Limit, Over};
use super::outcome::Outcome;
use super::record::Record;
use crate::IntoStatus;

pin_project! {
    /// A body that ends its call's record.
    pub(crate) struct Watched<B> {
        #[pin]
        inner: B,
        record: Record,
        #[pin]
        sleep: Option<Sleep>,
        framing: Framing,
        // What ends the answer where a message is refused.
        refusal: Option<Status>,
    }
}

impl<B> Watched<B> {
    /// A body that ends at the deadline, if there is one.
    pub(crate) fn until(
        deadline: Option<Deadline>,
        inner: B,
        limit: Limit,
        record: Record,
    ) -> Watched<B> {
        let sleep = deadline.map(|deadline| tokio::time::sleep_until(deadline.instant()));
        Watched { inner, record, sleep, framing: Framing::new(limit), refusal: None }
    }
}

impl<B> HttpBody for Watched<B>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let serving = this.record.is_serving();
        if let Some(status) = this.refusal.take() {
            this.record.end(&Outcome::of_status(&status));
            return Poll::Ready(Some(ending(status, serving)));
        }
        let frame = if serving {
            this.record.ctx.in_scope(|| this.inner.as_mut().poll_frame(cx))
        } else {
            this.inner.as_mut().poll_frame(cx)
        };
        let next = match frame {
            Poll::Ready(next) => next,
            Poll::Pending => {
                if !this.sleep.as_pin_mut().is_some_and(|sleep| sleep.poll(cx).is_ready()) {
                    this.record.waits();
                    return Poll::Pending;
                }
                Some(ending(late(), serving))
            }
        };
        match &next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let passed = this.framing.pass(data);
                    this.record.sends(passed.messages);
                    if let Some(Over { at, size }) = passed.over {
                        // What stands before it may be read.
                        let before = data.slice(..at);
                        let status = this.framing.limit().refuse(Some(size)).into_status();
                        if before.is_empty() {
                            this.record.end(&Outcome::of_status(&status));
                            return Poll::Ready(Some(ending(status, serving)));
                        }
                        *this.refusal = Some(status);
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    let outcome = Outcome::of_headers(trailers);
                    this.record.end(&outcome.unwrap_or_else(no_status));
                }
            }
            Some(Err(status)) => this.record.end(&Outcome::of_status(status)),
            None => this.record.end(&no_status()),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.refusal.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn no_status() -> Outcome {
    Outcome::failed(Code::Unknown, "the answer ended without a status")
}

fn late() -> Status {
    let message = "the answer was not complete before the deadline of the call";
    Error::deadline_exceeded("DEADLINE_EXCEEDED", message).into_status()
}

/// The end of an answer that we end: for the caller a failure to read it; for the wire a
/// status as any other, since a body that fails would only be a broken stream there.
pub(super) fn ending(status: Status, serving: bool) -> Result<Frame<Bytes>, Status> {
    if !serving {
        return Err(status);
    }
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
