//! A connection that has become something else, such as a WebSocket.
//!
//! hyper hands its stream to the handler and is done with it. It still is a connection of this
//! server: it has its place among them, and it is cut at the end of a drain. So stream and
//! connection stay tied together for as long as the stream is there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The end that the connection has.
pub(crate) struct Tie {
    shared: Arc<Shared>,
    gone: CancellationToken,
}

/// The end that the stream has.
pub(crate) struct Tied {
    shared: Arc<Shared>,
    _gone: DropGuard,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    reader: AtomicWaker,
}

/// Both ends.
pub(crate) fn tie() -> (Tie, Tied) {
    let (shared, gone) = (Arc::new(Shared::default()), CancellationToken::new());
    let tied = Tied { shared: shared.clone(), _gone: gone.clone().drop_guard() };
    (Tie { shared, gone }, tied)
}

impl Tie {
    /// Waits until nobody has the stream any more, or cuts it when `abort` says so: whoever reads
    /// from it has an error then. Who has it and does nothing is not waited for.
    pub(crate) async fn released(self, abort: &CancellationToken) {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => {}
            () = abort.cancelled() => {
                self.shared.is_cut.store(true, Ordering::Release);
                self.shared.reader.wake();
            }
        }
    }
}

impl Tied {
    /// What becomes of a read: it fails if the stream is cut, also while it waits.
    pub(crate) fn look<T>(
        &self,
        cx: &mut Context<'_>,
        read: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if read.is_ready() {
            return read;
        }
        self.shared.reader.register(cx.waker());
        if self.shared.is_cut.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }
}
