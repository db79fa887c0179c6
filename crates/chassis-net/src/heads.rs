//! The time for the head of a request, over HTTP/1: for the first one from the first bytes on, for
//! the next from the end of the answer before it.
//!
//! hyper has such a limit too, but with it each request costs one more turn of its loop with one
//! more look at the socket, and a timer that is made anew; and the time of the next head runs
//! while an answer that is in its buffers goes out to a slow reader. Here it is a note: when the
//! head is due. A connection has one timer, which looks at the note when it is due itself.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::Response;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// When the head is due that a connection waits for.
#[derive(Clone)]
pub(crate) struct Heads(Arc<Shared>);

struct Shared {
    timeout: Duration,
    due: Mutex<Option<Instant>>,
    /// Something came since it is waited for.
    has_begun: AtomicBool,
    /// A write waits for the other side to read.
    is_sending: AtomicBool,
}

/// What is said of a head when it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// None is due.
    Fine,
    /// It has begun and is not here.
    Slow,
    /// Nothing was asked any more.
    Idle,
}

impl Heads {
    pub(crate) fn new(timeout: Duration) -> Heads {
        Heads(Arc::new(Shared {
            timeout,
            due: Mutex::default(),
            has_begun: AtomicBool::default(),
            is_sending: AtomicBool::default(),
        }))
    }

    /// One is waited for from now on.
    pub(crate) fn wait(&self) {
        *self.0.due.lock() = Some(Instant::now() + self.0.timeout);
        self.0.has_begun.store(false, Relaxed);
    }

    /// Some bytes came.
    pub(crate) fn heard(&self) {
        self.0.has_begun.store(true, Relaxed);
    }

    /// Whether what is sent has to wait.
    pub(crate) fn sending(&self, waits: bool) {
        self.0.is_sending.store(waits, Relaxed);
    }

    /// It is here: the next is waited for when the answer to it has ended.
    pub(crate) fn came(&self) -> Came {
        *self.0.due.lock() = None;
        Came(Some(self.clone()))
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        *self.0.due.lock()
    }

    pub(crate) fn look(&self, now: Instant) -> Look {
        let mut due = self.0.due.lock();
        if due.is_none_or(|due| due > now) {
            Look::Fine
        } else if self.0.is_sending.load(Relaxed) {
            // How long an answer may take is not for this to say.
            *due = Some(now + self.0.timeout);
            Look::Fine
        } else if self.0.has_begun.load(Relaxed) {
            Look::Slow
        } else {
            Look::Idle
        }
    }
}

/// A request that has begun, until its answer has ended.
pub(crate) struct Came(Option<Heads>);

impl Came {
    /// One of many on a connection.
    pub(crate) fn unwatched() -> Came {
        Came(None)
    }
}

impl Drop for Came {
    fn drop(&mut self) {
        if let Some(heads) = &self.0 {
            heads.wait();
        }
    }
}

pin_project! {
    /// The answer to a request.
    pub(crate) struct Answer<F> {
        #[pin]
        answer: F,
        came: Option<Came>,
    }
}

impl<F> Answer<F> {
    pub(crate) fn new(answer: F, came: Came) -> Answer<F> {
        Answer { answer, came: Some(came) }
    }
}

impl<F, B> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Sent<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let came = this.came.take();
        Poll::Ready(answer.map(|answer| answer.map(|body| Sent { body, _came: came })))
    }
}

pin_project! {
    /// The body of an answer: hyper drops it when it has all of it.
    pub(crate) struct Sent<B> {
        #[pin]
        body: B,
        _came: Option<Came>,
    }
}

impl<B: Body> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_head_is_due_from_the_end_of_the_answer_before_it() {
        let heads = Heads::new(TIMEOUT);
        assert_eq!((heads.due(), heads.look(Instant::now())), (None, Look::Fine));
        heads.wait();
        heads.heard();
        assert_eq!(heads.due(), Some(Instant::now() + TIMEOUT));
        advance(TIMEOUT / 2).await;
        assert_eq!(heads.look(Instant::now()), Look::Fine);
        advance(TIMEOUT / 2).await;
        assert_eq!(heads.look(Instant::now()), Look::Slow);
        // While the answer goes on none is due, however long that takes.
        let came = heads.came();
        advance(TIMEOUT * 3).await;
        assert_eq!((heads.due(), heads.look(Instant::now())), (None, Look::Fine));
        drop(came);
        assert_eq!(heads.due(), Some(Instant::now() + TIMEOUT));
        advance(TIMEOUT).await;
        assert_eq!(heads.look(Instant::now()), Look::Idle);
        drop(Came::unwatched());
        assert_eq!(heads.look(Instant::now()), Look::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn no_head_is_due_while_the_answer_before_it_waits_for_its_reader() {
        let heads = Heads::new(TIMEOUT);
        heads.wait();
        heads.sending(true);
        for _ in 0..3 {
            advance(TIMEOUT).await;
            assert_eq!(heads.look(Instant::now()), Look::Fine);
        }
        heads.sending(false);
        assert_eq!(heads.look(Instant::now()), Look::Fine);
        advance(TIMEOUT).await;
        assert_eq!(heads.look(Instant::now()), Look::Idle);
    }
}
