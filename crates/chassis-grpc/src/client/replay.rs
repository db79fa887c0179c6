//! A request body that can be sent again.
//!
//! A unary request is small and complete from the start, so it is taken into one
//! buffer and each attempt sends that. A stream is neither: it goes out as it
//! comes, once. Nothing is waited for here, so a conversation that begins with
//! the server is not blocked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use chassis_core::Deadline;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::IntoStatus;
use crate::call::framing::{Framing, Limit};

/// Why the caller's own part of a call failed. The transport says of that no more than that a
/// stream was reset.
pub(super) type OwnFailure = Arc<OnceLock<Status>>;

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
    Stream { read: VecDeque<Frame<Bytes>>, rest: Sending },
}

/// The messages of a stream that goes out.
struct Sending {
    body: Body,
    framing: Framing,
    failure: OwnFailure,
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let passed = frame?.and_then(|frame| pass(&mut self.framing, frame));
            if let Err(status) = &passed {
                // No more is asked of it.
                self.body = Body::empty();
                self.failure.get_or_init(|| status.clone());
            }
            Some(passed)
        })
    }
}

/// A frame, unless it holds a message that is too large.
fn pass(framing: &mut Framing, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
    match frame.data_ref().and_then(|data| framing.pass(data).over) {
        Some(over) => Err(framing.limit().refuse(Some(over.size)).into_status()),
        None => Ok(frame),
    }
}

impl Replay {
    /// Takes what is ready of a body; no more than `cap` bytes are kept for another attempt.
    ///
    /// # Errors
    /// What the body fails with, or that a message in it is too large: nothing is sent then.
    pub(super) fn read(mut body: Body, cap: usize, limit: Limit) -> Result<Replay, Status> {
        let mut framing = Framing::new(limit);
        // Whoever polls the rest brings a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        // A unary request is one frame: the queue is for what comes in several.
        let mut first = None;
        let mut more = VecDeque::new();
        let mut size = 0;
        loop {
            let frame = match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return Ok(Replay::whole(first, more)),
                Poll::Ready(Some(frame)) => pass(&mut framing, frame?)?,
                Poll::Pending => break,
            };
            let data = frame.data_ref().map(Bytes::len);
            match frame.into_data() {
                Ok(data) if first.is_none() => first = Some(data),
                Ok(data) => more.push_back(Frame::data(data)),
                Err(other) => more.push_back(other),
            }
            size += data.unwrap_or_default();
            if data.is_none() || size > cap {
                break;
            }
        }
        if let Some(data) = first {
            more.push_front(Frame::data(data));
        }
        let rest = Sending { body, framing, failure: OwnFailure::default() };
        Ok(Replay::new(Content::Stream { read: more, rest }))
    }

    /// Where it will be said why the request failed on this side, if that can still happen.
    pub(super) fn own_failure(&self) -> Option<OwnFailure> {
        match &self.content {
            Content::Whole(_) => None,
            Content::Stream { rest, .. } => Some(Arc::clone(&rest.failure)),
        }
    }

    fn new(content: Content) -> Replay {
        Replay { content, previous: 0, target: None, deadline: None }
    }

    /// A complete request.
    pub(super) fn of(data: Bytes) -> Replay {
        Replay::new(Content::Whole(Some(data)))
    }

    fn whole(first: Option<Bytes>, mut more: VecDeque<Frame<Bytes>>) -> Replay {
        let first = first.unwrap_or_default();
        if more.is_empty() {
            return Replay::of(first);
        }
        let mut all = BytesMut::from(first);
        for chunk in more.drain(..).filter_map(|frame| frame.into_data().ok()) {
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
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.poll(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(data) => data.is_none(),
            Content::Stream { read, rest } => read.is_empty() && rest.body.is_end_stream(),
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
    const LIMIT: Limit = Limit::Send(u32::MAX);

    fn read(body: Body) -> Replay {
        Replay::read(body, CAP, LIMIT).unwrap()
    }

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
        let replay = read(body(vec![vec![1, 2], vec![3], vec![4]]));
        let again = replay.again().unwrap();
        assert_eq!(bytes(again.again().unwrap()), [1, 2, 3, 4]);
        assert_eq!(bytes(again), [1, 2, 3, 4]);
        assert_eq!(bytes(replay), [1, 2, 3, 4]);
    }

    #[test]
    fn a_large_body_goes_out_once_and_whole() {
        let chunks = vec![vec![7; CAP / 2]; 5];
        let replay = read(body(chunks));
        assert!(replay.again().is_none());
        assert_eq!(bytes(replay).len(), CAP / 2 * 5);
    }

    #[test]
    fn a_stream_that_goes_on_is_not_waited_for() {
        let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"hi")))]);
        let replay = read(Body::new(StreamBody::new(first.chain(stream::pending()))));
        assert!(replay.again().is_none());
        let Content::Stream { read, .. } = replay.content else {
            panic!("taken for whole");
        };
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn a_body_that_fails_at_once_is_not_sent() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(Status::internal("encode"))]);
        let failing = Body::new(StreamBody::new(frames));
        let status = Replay::read(failing, CAP, LIMIT).err().unwrap();
        assert_eq!(status.message(), "encode");
        let large = body(vec![b"\0\0\0\0\x02ab\0\0\x10\0\x01".to_vec()]);
        let status = Replay::read(large, CAP, Limit::Send(4096)).err().unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn a_body_that_fails_later_says_why() {
        let later = futures_util::future::poll_fn({
            let mut waited = false;
            move |cx| {
                if std::mem::replace(&mut waited, true) {
                    return Poll::Ready(Err::<Frame<Bytes>, _>(Status::internal("encode")));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        });
        let replay = read(Body::new(StreamBody::new(stream::once(later))));
        let failure = replay.own_failure().unwrap();
        assert!(failure.get().is_none());
        let mut replay = replay;
        let failed = replay.frame().now_or_never().unwrap().unwrap();
        assert!(failed.is_err());
        assert_eq!(failure.get().unwrap().message(), "encode");
        assert!(replay.frame().now_or_never().unwrap().is_none());
    }
}
