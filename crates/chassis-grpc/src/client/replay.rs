//! A request body that can be sent again.
//!
//! A unary request is small and complete from the start, so it is taken into one
//! buffer and each attempt sends that. A stream is neither: it goes out as it
//! comes, once. Nothing is waited for here, so a conversation that begins with
//! the server is not blocked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use chassis_core::Deadline;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// The body of one attempt, and what the layers below want to know of its call.
pub(super) struct Replay {
    content: Content,
    previous: u32,
    target: Option<Arc<str>>,
    deadline: Option<Deadline>,
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
        // Whoever polls the rest brings a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        // A unary request is one frame: the queue is for what comes in several.
        let mut first = None;
        let mut more = VecDeque::new();
        let mut size = 0;
        loop {
            let frame = match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Replay::whole(first, more),
                Poll::Ready(Some(frame)) => frame,
                Poll::Pending => break,
            };
            let data = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if first.is_none() => first = Some(data),
                Ok(Ok(data)) => more.push_back(Ok(Frame::data(data))),
                Ok(Err(other)) => more.push_back(Ok(other)),
                Err(status) => more.push_back(Err(status)),
            }
            size += data.unwrap_or_default();
            if data.is_none() || size > cap {
                break;
            }
        }
        if let Some(data) = first {
            more.push_front(Ok(Frame::data(data)));
        }
        Replay::new(Content::Stream { read: more, rest: body })
    }

    fn new(content: Content) -> Replay {
        Replay { content, previous: 0, target: None, deadline: None }
    }

    /// A complete request.
    pub(super) fn of(data: Bytes) -> Replay {
        Replay::new(Content::Whole(Some(data)))
    }

    fn whole(first: Option<Bytes>, mut more: VecDeque<Result<Frame<Bytes>, Status>>) -> Replay {
        let first = first.unwrap_or_default();
        if more.is_empty() {
            return Replay::of(first);
        }
        let mut all = BytesMut::from(first);
        for chunk in more.drain(..).filter_map(|frame| frame.ok()?.into_data().ok()) {
            all.extend_from_slice(&chunk);
        }
        Replay::of(all.freeze())
    }

    /// The same body for another attempt, if that is possible.
    pub(super) fn again(&self) -> Option<Replay> {
        match &self.content {
            Content::Whole(Some(data)) => {
                let content = Content::Whole(Some(data.clone()));
                Some(Replay { content, target: self.target.clone(), ..*self })
            }
            _ => None,
        }
    }

    /// Says what is called, for who asks for it by name.
    pub(super) fn with_target(self, target: &Arc<str>) -> Replay {
        Replay { target: Some(Arc::clone(target)), ..self }
    }

    /// What is called.
    pub(super) fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    /// Says until when somebody waits for the answer; here and not in the extensions of the
    /// request, where it would be two allocations of each attempt.
    pub(super) fn until(self, deadline: Option<Deadline>) -> Replay {
        Replay { deadline, ..self }
    }

    /// Until when somebody waits for the answer, if that is said.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Says how many attempts there were before this one.
    pub(super) fn set_previous_attempts(&mut self, previous: u32) {
        self.previous = previous;
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
