//! The body of a request: who broke it off, how many messages came, and none too large.
//!
//! A caller that is killed in the middle of a request leaves a handler that cannot read the
//! rest and fails with that. What ended the call is the caller all the same; whether its body
//! broke is known here alone, since a callee's answer that breaks looks alike to the handler.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use chassis_core::BoxError;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

use crate::IntoStatus;
use crate::call::framing::Framing;
use crate::call::streams::Receiving;

/// A request's body.
pub(super) struct Asked<B> {
    pub(super) body: B,
    pub(super) framing: Framing,
    pub(super) receiving: Receiving,
    pub(super) refusal: Refusal,
}

/// How far the refusal of a message is.
#[derive(Default)]
pub(super) enum Refusal {
    #[default]
    None,
    /// What stands before the message is being read.
    Next(Status),
    Done,
}

impl<B> HttpBody for Asked<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !matches!(this.refusal, Refusal::None) {
            return Poll::Ready(match std::mem::replace(&mut this.refusal, Refusal::Done) {
                Refusal::Next(status) => Some(Err(status.into())),
                Refusal::None | Refusal::Done => None,
            });
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                this.receiving.received().break_off();
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(data) = frame.data_ref() {
            let passed = this.framing.pass(data);
            this.receiving.add(passed.messages, this.body.is_end_stream());
            if let Some(over) = passed.over {
                let refusal = this.framing.limit().refuse(Some(over.size)).into_status();
                this.refusal = Refusal::Next(refusal);
                return Poll::Ready(Some(Ok(Frame::data(data.slice(..over.at)))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self.refusal {
            Refusal::None => self.body.is_end_stream(),
            Refusal::Next(_) => false,
            Refusal::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
