//! The body of a request before it is on the wire: bytes that can be sent again, or a stream
//! that can be sent once.
//!
//! A retry needs a copy of the request before the first attempt. Bytes are shared. A stream
//! cannot be copied, but its place can: whoever reads first takes it, and as long as nobody
//! has, nothing was sent and another attempt may still take it. A stream that is complete when
//! the call begins, as the body of a small forwarded request is, is taken for bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use chassis_core::Deadline;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

/// A body that clones by reference, and what the layers below want to know of its call.
#[derive(Clone)]
pub(super) struct Payload {
    content: Content,
    previous: u32,
    target: Option<Arc<str>>,
    deadline: Option<Deadline>,
}

#[derive(Clone)]
enum Content {
    Whole(Bytes),
    Once(Arc<Place>),
}

/// Where a stream waits for its reader.
pub(super) struct Place {
    body: Mutex<Option<Begun>>,
    hint: SizeHint,
}

impl Payload {
    pub(super) fn whole(bytes: Bytes) -> Payload {
        Payload::new(Content::Whole(bytes))
    }

    fn new(content: Content) -> Payload {
        Payload { content, previous: 0, target: None, deadline: None }
    }

    /// Puts these bytes in place of the body.
    pub(super) fn set_bytes(&mut self, bytes: Bytes) {
        self.content = Content::Whole(bytes);
    }

    /// Takes what is there of a body, up to `cap` bytes. Nothing is waited for.
    pub(super) fn from_body(mut body: Body, cap: usize) -> Payload {
        let hint = http_body::Body::size_hint(&body);
        let mut read = VecDeque::new();
        let mut size = 0;
        // Whoever polls the rest brings a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        while size <= cap {
            match http_body::Body::poll_frame(Pin::new(&mut body), &mut cx) {
                Poll::Ready(None) => return Payload::whole(joined(&mut read)),
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    size += frame.data_ref().map_or(0, Bytes::len);
                    read.push_back(Ok(frame));
                }
                // Trailers and errors are for whoever sends it.
                Poll::Ready(Some(other)) => {
                    read.push_back(other);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let place = Place { body: Mutex::new(Some(Begun { read, rest: body })), hint };
        Payload::new(Content::Once(Arc::new(place)))
    }

    /// The same for another attempt, if no more than `cap` bytes have to be kept for it.
    pub(super) fn again(&self, cap: usize) -> Option<Payload> {
        let kept = match &self.content {
            Content::Whole(bytes) => bytes.len(),
            Content::Once(_) => 0,
        };
        (kept <= cap).then(|| self.clone())
    }

    /// Says what is called, for who asks for it by name.
    pub(super) fn set_target(&mut self, target: &Arc<str>) {
        self.target = Some(Arc::clone(target));
    }

    /// What is called.
    pub(super) fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    /// Says until when somebody waits for the answer; here and not in the extensions of the
    /// request, where it would be two allocations of each attempt.
    pub(super) fn set_deadline(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// Until when somebody waits for the answer.
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

    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    /// The bytes of a whole body; of a stream, which only a forwarded request has, none.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.content {
            Content::Whole(bytes) => bytes,
            Content::Once(_) => Bytes::new(),
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.content, Content::Once(_))
    }

    /// Whether somebody has begun to read the stream.
    pub(super) fn is_spent(&self) -> bool {
        match &self.content {
            Content::Whole(_) => false,
            Content::Once(place) => place.body.lock().is_none(),
        }
    }

    pub(super) fn into_body(self) -> Body {
        match self.content {
            Content::Whole(bytes) => Body::from(bytes),
            Content::Once(place) => Body::new(Taken { place, body: None }),
        }
    }
}

/// The bytes of data frames.
fn joined(read: &mut VecDeque<Result<Frame<Bytes>, axum::Error>>) -> Bytes {
    let mut chunks = read.drain(..).filter_map(|frame| frame.ok()?.into_data().ok());
    let first = chunks.next().unwrap_or_default();
    let Some(second) = chunks.next() else {
        return first;
    };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    chunks.for_each(|chunk| all.extend_from_slice(&chunk));
    all.freeze()
}

/// A stream of which something was read.
struct Begun {
    read: VecDeque<Result<Frame<Bytes>, axum::Error>>,
    rest: Body,
}

/// A body that takes its stream at the first read.
struct Taken {
    place: Arc<Place>,
    body: Option<Begun>,
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.body.is_none() {
            this.body = this.place.body.lock().take();
        }
        match &mut this.body {
            Some(body) => match body.read.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => http_body::Body::poll_frame(Pin::new(&mut body.rest), cx),
            },
            None => Poll::Ready(Some(Err(axum::Error::new("the body was sent already")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_some_and(|body| body.read.is_empty() && http_body::Body::is_end_stream(&body.rest))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if body.read.is_empty() => http_body::Body::size_hint(&body.rest),
            Some(_) => SizeHint::default(),
            None => self.place.hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    const CAP: usize = 100;

    /// A stream that has its first chunk at once, and its second when it is asked again.
    fn stream() -> Body {
        let rest = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>("def")
        });
        Body::from_stream(futures_util::stream::iter([Ok("abc")]).chain(rest))
    }

    async fn read(payload: Payload) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(payload.into_body(), 1_000).await
    }

    #[tokio::test]
    async fn an_unread_stream_may_be_sent_by_the_next_attempt() {
        let payload = Payload::from_body(stream(), CAP);
        let copy = payload.again(CAP).unwrap();
        drop(payload.into_body());
        assert!(copy.is_stream() && !copy.is_spent());
        assert_eq!(read(copy.clone()).await.unwrap(), "abcdef");
        assert!(copy.is_spent());
        assert!(read(copy).await.is_err());
    }

    #[tokio::test]
    async fn what_is_complete_can_be_sent_many_times() {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("abc"), Ok("def")]);
        let payload = Payload::from_body(Body::from_stream(chunks), CAP);
        assert!(!payload.is_stream());
        for _ in 0..2 {
            assert_eq!(read(payload.again(6).unwrap()).await.unwrap(), "abcdef");
        }
        assert!(payload.again(5).is_none(), "more than may be kept");
    }

    #[tokio::test]
    async fn what_is_too_large_goes_out_once_and_whole() {
        let chunks = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>("abc")));
        let payload = Payload::from_body(Body::from_stream(chunks), CAP);
        assert!(payload.is_stream());
        assert_eq!(read(payload).await.unwrap().len(), 300);
    }

    #[test]
    fn no_body_is_no_stream() {
        assert!(!Payload::from_body(Body::empty(), CAP).is_stream());
    }

    #[test]
    fn a_declared_length_is_kept() {
        let body = Payload::from_body(Body::from("abc"), 2).into_body();
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
    }
}
