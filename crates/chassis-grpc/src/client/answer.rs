//! The body of an answer of which the first frame was looked at.
//!
//! A call that fails has its status in the headers only if the server sends no others before;
//! many send headers first and the status in the trailers right after. Whoever decides about a
//! retry, or about the endpoint, would take that for a success. So the first frame is looked at
//! if it has come together with the head, which is not waited for; if it is trailers, they are
//! made part of the head (as linkerd's `peek_trailers` does it).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use chassis_core::BoxError;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

use super::replay::OwnFailure;

/// A body with its first frame apart, if it was there.
pub(super) struct Answer<B> {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: B,
    own_failure: Option<OwnFailure>,
}

impl<B> Answer<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Looks at what has come with the head.
    pub(super) fn peek(answer: Response<B>, cx: &mut Context<'_>) -> Response<Answer<B>> {
        let (mut head, mut rest) = answer.into_parts();
        if head.headers.contains_key(Status::GRPC_STATUS) {
            return Response::from_parts(head, Answer { first: None, rest, own_failure: None });
        }
        let first = match Pin::new(&mut rest).poll_frame(cx) {
            Poll::Ready(first) => first,
            Poll::Pending => None,
        };
        let first = match first.map(|frame| frame.map(Frame::into_trailers)) {
            Some(Ok(Ok(trailers))) => {
                head.headers.extend(trailers);
                None
            }
            Some(Ok(Err(frame))) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(Status::from_error(error.into()))),
            None => None,
        };
        Response::from_parts(head, Answer { first, rest, own_failure: None })
    }

    /// Says where it stands if the request failed on this side, which is then why this fails.
    pub(super) fn or(self, own_failure: Option<OwnFailure>) -> Answer<B> {
        Answer { own_failure, ..self }
    }
}

impl<B> HttpBody for Answer<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut this.rest).poll_frame(cx).map_err(|error| {
                match this.own_failure.as_ref().and_then(|it| it.get()) {
                    Some(status) => status.clone(),
                    None => Status::from_error(error.into()),
                }
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() { SizeHint::default() } else { self.rest.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use tonic::body::Body;

    use super::*;

    fn peek(frames: Vec<Frame<Bytes>>) -> Response<Answer<Body>> {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, Status>));
        let answer = Response::new(Body::new(StreamBody::new(frames)));
        Answer::peek(answer, &mut Context::from_waker(std::task::Waker::noop()))
    }

    fn trailers() -> Frame<Bytes> {
        let unavailable = (http::HeaderName::from_static("grpc-status"), HeaderValue::from(14));
        Frame::trailers(HeaderMap::from_iter([unavailable]))
    }

    #[test]
    fn a_status_right_after_the_head_belongs_to_it() {
        let answer = peek(vec![trailers()]);
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert!(answer.into_body().frame().now_or_never().unwrap().is_none());
    }

    #[test]
    fn a_message_is_not_lost() {
        let answer = peek(vec![Frame::data("hello".into()), trailers()]);
        assert!(answer.headers().is_empty());
        assert!(!answer.body().is_end_stream());
        let collected = answer.into_body().collect().now_or_never().unwrap().unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "14");
        assert_eq!(collected.to_bytes(), "hello");
    }

    #[test]
    fn what_is_not_there_is_not_waited_for() {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let answer = Answer::peek(Response::new(Body::new(body)), &mut cx);
        assert!(answer.into_body().frame().now_or_never().is_none());
    }
}
