//! A body with limits of size and time, for what comes in on either side.
//!
//! A declared length is checked before anything is read; this is for the bodies that declare
//! none, and for those that are long in coming. It fails instead of ending early: a body that was
//! cut must not look complete.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Which limit a body can go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Size = 1,
    Time = 2,
}

/// Remembers that a body went over a limit, whatever the reader made of the error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tripped(Arc<AtomicU8>);

impl Tripped {
    pub(crate) fn by(&self) -> Option<Limit> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Limit::Size),
            _ => Some(Limit::Time),
        }
    }

    fn set(&self, limit: Limit) -> axum::Error {
        self.0.store(limit as u8, Ordering::Relaxed);
        error(limit)
    }
}

fn error(limit: Limit) -> axum::Error {
    match limit {
        Limit::Size => axum::Error::new(LimitReached),
        Limit::Time => axum::Error::new(TooSlow),
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

/// The body did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body did not come in time")
    }
}

impl std::error::Error for TooSlow {}

/// The limit that an error is about, or comes from.
pub(crate) fn limit_of(error: &(dyn std::error::Error + 'static)) -> Option<Limit> {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LimitReached>() {
            return Some(Limit::Size);
        }
        if error.is::<TooSlow>() {
            return Some(Limit::Time);
        }
        next = error.source();
    }
    None
}

pin_project_lite::pin_project! {
    /// A body that fails once it has given more than its limit, or taken longer.
    pub(crate) struct Limited {
        #[pin]
        inner: Body,
        left: u64,
        until: Option<Instant>,
        // Only made for a body that is waited for.
        timer: Option<Pin<Box<Sleep>>>,
        tripped: Tripped,
    }
}

impl Limited {
    pub(crate) fn new(inner: Body, limit: u64, tripped: Tripped) -> Limited {
        Limited { inner, left: limit, until: None, timer: None, tripped }
    }

    /// The same, with a time until which all of it must be there.
    pub(crate) fn until(self, until: Instant) -> Limited {
        Limited { until: Some(until), ..self }
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
        if let Some(limit) = this.tripped.by() {
            return Poll::Ready(Some(Err(error(limit))));
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let Some(until) = *this.until else { return Poll::Pending };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            return timer.as_mut().poll(cx).map(|()| Some(Err(this.tripped.set(Limit::Time))));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => *this.left = left,
                None => return Poll::Ready(Some(Err(this.tripped.set(Limit::Size)))),
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
