//! A body with a limit, for what comes in on either side.
//!
//! A declared length is checked before anything is read; this is for the bodies that declare
//! none. It fails instead of ending early: a body that was cut must not look complete.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Remembers that a body went over its limit, whatever the reader made of the error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tripped(Arc<AtomicBool>);

impl Tripped {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitReached;

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is longer than the limit")
    }
}

impl std::error::Error for LimitReached {}

/// Whether an error is, or comes from, a body over its limit.
pub(crate) fn is_reached(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LimitReached>() {
            return true;
        }
        next = error.source();
    }
    false
}

pin_project_lite::pin_project! {
    /// A body that fails once it has given more than its limit.
    pub(crate) struct Limited {
        #[pin]
        inner: Body,
        left: u64,
        tripped: Tripped,
    }
}

impl Limited {
    pub(crate) fn new(inner: Body, limit: u64, tripped: Tripped) -> Limited {
        Limited { inner, left: limit, tripped }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if this.tripped.is_set() {
            return Poll::Ready(Some(Err(axum::Error::new(LimitReached))));
        }
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => *this.left = left,
                None => {
                    this.tripped.0.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(axum::Error::new(LimitReached))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
