//! A peer that takes nothing of what is sent to it.
//!
//! Its window is full, and a write waits for it: without an end if it does not mean to read, and
//! with it the answer, its memory and a place among the connections. hyper has no timer for that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::heads::Heads;

/// Watches the writes of a connection.
pub(crate) struct Stall {
    limit: Option<Duration>,
    /// Runs while a write waits; none is made for a peer that keeps up.
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    heads: Heads,
}

impl Stall {
    /// `None` for no limit.
    pub(crate) fn new(limit: Option<Duration>, heads: Heads) -> Stall {
        Stall { limit, timer: None, waits: false, heads }
    }

    /// What becomes of a write.
    pub(crate) fn look<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_pending() != self.waits {
            self.waits = write.is_pending();
            self.heads.sending(self.waits);
            self.timer = None;
        }
        if write.is_ready() {
            return write;
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}
