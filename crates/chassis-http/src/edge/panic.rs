//! A panic of a handler becomes a 500, and one log line instead of two.
//!
//! `catch_unwind` alone leaves the default hook to write the panic to stderr, outside the
//! log and without its ids. So a hook is installed once, which keeps the place of the panic
//! for whoever catches it while a handler is being polled on this thread, and hands every
//! other panic to the hook that was there before.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Once,
    task::{Context as Poller, Poll},
};

use chassis_core::{Error, error::panic_text};

use crate::problem::Problem;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook; the second call does nothing.
pub(crate) fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                previous(info);
            }
        }));
    });
}

/// A handler panicked.
#[derive(Debug)]
pub(super) struct Panicked {
    message: String,
    place: Option<String>,
}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Panicked {
        Panicked { message: panic_text(payload).to_owned(), place: PLACE.take() }
    }

    /// The answer: nothing but "internal error"; the rest is for the log.
    pub(super) fn into_problem(self) -> Problem {
        Error::internal(self).into()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic: {}", self.message)?;
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Panicked {}

pin_project_lite::pin_project! {
    /// A future whose panic is its result. It must not be polled after that.
    pub(super) struct CatchPanic<F> {
        #[pin]
        inner: F,
    }
}

impl<F> CatchPanic<F> {
    pub(super) fn new(inner: F) -> CatchPanic<F> {
        CatchPanic { inner }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let inner = self.project().inner;
        let outer = CATCHING.replace(true);
        // Unwind safe: after a panic the future is dropped and never polled again.
        let result = catch_unwind(AssertUnwindSafe(|| inner.poll(poller)));
        CATCHING.set(outer);
        match result {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(Panicked::new(&*payload))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_result_with_its_place() {
        install_hook();
        let caught = CatchPanic::new(async { panic!("no {}", "way") }).await;
        let caught: Result<(), Panicked> = caught;
        let text = caught.unwrap_err().to_string();
        assert!(text.starts_with("panic: no way at ") && text.contains("panic.rs:"), "{text}");
        assert!(CatchPanic::new(async { 7 }).await.is_ok_and(|value| value == 7));
    }
}
