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

/// Most that is kept for another attempt, in bytes (linkerd: 64 KB).
const CAP: usize = 64 * 1024;

/// The body of one attempt.
pub(super) enum Replay {
    /// The whole request, or nothing once it was sent.
    Whole(Option<Bytes>),
    /// What was read ahead, then the rest.
    Stream { read: VecDeque<Result<Frame<Bytes>, Status>>, rest: Body },
}

impl Replay {
    /// Takes what is ready of a body.
    pub(super) fn read(mut body: Body) -> Replay {
        let mut read = VecDeque::new();
        let mut size = 0;
        // Whoever polls the rest brings a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Replay::whole(read),
                Poll::Ready(Some(frame)) => {
                    let data = frame.as_ref().ok().and_then(Frame::data_ref);
                    size += data.map_or(CAP, Bytes::len);
                    read.push_back(frame);
                }
                Poll::Pending => size = CAP,
            }
            if size >= CAP {
                return Replay::Stream { read, rest: body };
            }
        }
    }

    fn whole(mut read: VecDeque<Result<Frame<Bytes>, Status>>) -> Replay {
        let mut chunks = read.drain(..).filter_map(|frame| frame.ok()?.into_data().ok());
        let first = chunks.next().unwrap_or_default();
        let Some(second) = chunks.next() else {
            return Replay::Whole(Some(first));
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        for chunk in chunks {
            all.extend_from_slice(&chunk);
        }
        Replay::Whole(Some(all.freeze()))
    }

    /// The same body for another attempt, if that is possible.
    pub(super) fn again(&self) -> Option<Replay> {
        match self {
            Replay::Whole(Some(data)) => Some(Replay::Whole(Some(data.clone()))),
            _ => None,
        }
    }
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Replay::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Replay::Stream { read, rest } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Replay::Whole(data) => data.is_none(),
            Replay::Stream { read, rest } => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Replay::Whole(Some(data)) => SizeHint::with_exact(data.len() as u64),
            Replay::Whole(None) => SizeHint::with_exact(0),
            Replay::Stream { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

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
        let replay = Replay::read(body(vec![vec![1, 2], vec![3], vec![4]]));
        let again = replay.again().unwrap();
        assert_eq!(bytes(again.again().unwrap()), [1, 2, 3, 4]);
        assert_eq!(bytes(again), [1, 2, 3, 4]);
        assert_eq!(bytes(replay), [1, 2, 3, 4]);
    }

    #[test]
    fn a_large_body_goes_out_once_and_whole() {
        let chunks = vec![vec![7; CAP / 2]; 5];
        let replay = Replay::read(body(chunks));
        assert!(replay.again().is_none());
        assert_eq!(bytes(replay).len(), CAP / 2 * 5);
    }

    #[test]
    fn a_stream_that_goes_on_is_not_waited_for() {
        let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"hi")))]);
        let replay = Replay::read(Body::new(StreamBody::new(first.chain(stream::pending()))));
        assert!(replay.again().is_none());
        let Replay::Stream { read, .. } = replay else {
            panic!("taken for whole");
        };
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn a_body_that_fails_fails_when_it_is_sent() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(Status::internal("encode"))]);
        let replay = Replay::read(Body::new(StreamBody::new(frames)));
        assert!(replay.again().is_none());
        assert!(replay.collect().now_or_never().unwrap().is_err());
    }
}
