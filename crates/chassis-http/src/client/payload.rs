//! The body of a request before it is on the wire: bytes that can be sent again, or a stream
//! that can be sent once.
//!
//! A retry needs a copy of the request before the first attempt. Bytes are shared. A stream
//! cannot be copied, but its place can: whoever reads first takes it, and as long as nobody
//! has, nothing was sent and another attempt may still take it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

/// Largest body that is sent a second time, in bytes: above it a repetition costs the network
/// more than it is likely to gain.
const MAX_REPLAY: usize = 1024 * 1024;

/// A body that clones by reference.
#[derive(Clone)]
pub(super) enum Payload {
    Whole(Bytes),
    Once(Arc<Place>),
}

/// Where a stream waits for its reader.
pub(super) struct Place {
    body: Mutex<Option<Body>>,
    hint: SizeHint,
}

impl Payload {
    pub(super) fn from_body(body: Body) -> Payload {
        if http_body::Body::is_end_stream(&body) {
            return Payload::Whole(Bytes::new());
        }
        let hint = http_body::Body::size_hint(&body);
        Payload::Once(Arc::new(Place { body: Mutex::new(Some(body)), hint }))
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Payload::Once(_))
    }

    /// Whether a copy is worth keeping.
    pub(super) fn is_small_enough(&self) -> bool {
        match self {
            Payload::Whole(bytes) => bytes.len() <= MAX_REPLAY,
            Payload::Once(_) => true,
        }
    }

    /// Whether somebody has begun to read the stream.
    pub(super) fn is_spent(&self) -> bool {
        match self {
            Payload::Whole(_) => false,
            Payload::Once(place) => place.body.lock().is_none(),
        }
    }

    pub(super) fn into_body(self) -> Body {
        match self {
            Payload::Whole(bytes) => Body::from(bytes),
            Payload::Once(place) => Body::new(Taken { place, body: None }),
        }
    }
}

/// A body that takes its stream at the first read.
struct Taken {
    place: Arc<Place>,
    body: Option<Body>,
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
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err(axum::Error::new("the body was sent already")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => http_body::Body::size_hint(body),
            None => self.place.hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Body {
        Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("abc")]))
    }

    async fn read(body: Body) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(body, 100).await
    }

    #[tokio::test]
    async fn an_unread_stream_may_be_sent_by_the_next_attempt() {
        let payload = Payload::from_body(stream());
        let copy = payload.clone();
        drop(payload.into_body());
        assert!(copy.is_stream() && !copy.is_spent());
        assert_eq!(read(copy.clone().into_body()).await.unwrap(), "abc");
        assert!(copy.is_spent());
        assert!(read(copy.into_body()).await.is_err());
    }

    #[test]
    fn no_body_is_no_stream() {
        assert!(!Payload::from_body(Body::empty()).is_stream());
    }

    #[test]
    fn a_declared_length_is_kept() {
        let body = Payload::from_body(Body::from("abc")).into_body();
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
    }
}
