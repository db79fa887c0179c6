//! A request body that can be sent again.
//!
//! A unary request is small and complete from the start, so it is taken into one
//! buffer and each attempt sends that. A stream is neither: it goes out as it
//! comes, once. Nothing is waited for here, so a conversation that begins with
//! the server is not blocked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// The body of one attempt, and how many there were before it.
pub(super) struct Replay {
    content: Content,
    previous: u32,
}

enum Content {
    /// The whole request, or nothing once it was sent.
    Whole(Option<Bytes>),
    /// What was read ahead, then the rest.
    Stream { read: VecDeque<Result<Frame<Bytes>, Status>>, rest: Body },
}

impl Replay {
    /// Takes what is ready of a body; no more than `cap` bytes are kept for another attempt.
    pub(super) fn read(mut body: Body, cap: usize) -> Replay {
        let mut read = VecDeque::new();
        let mut size = 0;
        // Whoever polls the rest brings a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        let stream = |read, rest| Replay { content: Content::Stream { read, rest }, previous: 0 };
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Replay::whole(read),
                Poll::Ready(Some(frame)) => {
                    let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
                    size += data.unwrap_or_default();
                    read.push_back(frame);
                    if data.is_none() || size > cap {
                        return stream(read, body);
                    }
                }
                Poll::Pending => return stream(read, body),
            }
        }
    }

    /// A complete request.
    pub(super) fn of(data: Bytes) -> Replay {
        Replay { content: Content::Whole(Some(data)), previous: 0 }
    }

    fn whole(mut read: VecDeque<Result<Frame<Bytes>, Status>>) -> Replay {
        let mut chunks = read.drain(..).filter_map(|frame| frame.ok()?.into_data().ok());
        let first = chunks.next().unwrap_or_default();
        let Some(second) = chunks.next() else {
            return Replay::of(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        for chunk in chunks {
            all.extend_from_slice(&chunk);
        }
        Replay::of(all.freeze())
    }

    /// The same body for another attempt, if that is possible.
    pub(super) fn again(&self) -> Option<Replay> {
        match &self.content {
            Content::Whole(Some(data)) => {
                Some(Replay { previous: self.previous + 1, ..Replay::of(data.clone()) })
            }
            _ => None,
        }
    }

    /// How many attempts there were before this one.
    pub(super) fn previous_attempts(&self) -> u32 {
        self.previous
    }
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.get_mut().content {
            Content::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Content::Stream { read, rest } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(data) => data.is_none(),
            Content::Stream { read, rest } => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(Some(data)) => SizeHint::with_exact(data.len() as u64),
            Content::Whole(None) => SizeHint::with_exact(0),
            Content::Stream { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const CAP: usize = 64 * 1024;

    fn body(chunks: Vec<Vec<u8>>) -> Body {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Status>(Frame::data(chunk.into())));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn bytes(replay: Replay) -> Vec<u8> {
        let collected = replay.collect().now_or_never().unwrap().unwrap();
        collected.to_bytes().to_vec()
    }

    #[test]
    fn a_complete_body_can_be_sent_many_times() {
        let replay = Replay::read(body(vec![vec![1, 2], vec![3], vec![4]]), CAP);
        let again = replay.again().unwrap();
        assert_eq!((replay.previous_attempts(), again.previous_attempts()), (0, 1));
        assert_eq!(bytes(again.again().unwrap()), [1, 2, 3, 4]);
        assert_eq!(bytes(again), [1, 2, 3, 4]);
        assert_eq!(bytes(replay), [1, 2, 3, 4]);
    }

    #[test]
    fn a_large_body_goes_out_once_and_whole() {
        let chunks = vec![vec![7; CAP / 2]; 5];
        let replay = Replay::read(body(chunks), CAP);
        assert!(replay.again().is_none());
        assert_eq!(bytes(replay).len(), CAP / 2 * 5);
    }

    #[test]
    fn a_stream_that_goes_on_is_not_waited_for() {
        let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"hi")))]);
        let replay = Replay::read(Body::new(StreamBody::new(first.chain(stream::pending()))), CAP);
        assert!(replay.again().is_none());
        let Content::Stream { read, .. } = replay.content else {
            panic!("taken for whole");
        };
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn a_body_that_fails_fails_when_it_is_sent() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(Status::internal("encode"))]);
        let replay = Replay::read(Body::new(StreamBody::new(frames)), CAP);
        assert!(replay.again().is_none());
        assert!(replay.collect().now_or_never().unwrap().is_err());
    }
}
