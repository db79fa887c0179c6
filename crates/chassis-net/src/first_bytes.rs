//! The first bytes of a connection, watched.
//!
//! hyper-util reads the start of a connection to tell HTTP/1 from HTTP/2, and that read has
//! no time-out: a client that sends nothing, or half of the HTTP/2 preface, would hold the
//! connection for ever. So the bytes are counted until the version is known; from then on
//! [heads](crate::heads) are waited for, or hyper's own timers of HTTP/2 watch.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{heads::Heads, stall::Stall, stream::Stream, upgraded::Tied};

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that tells when enough was read to know the version.
pub(crate) struct Sniffed {
    stream: Stream,
    stall: Stall,
    tied: Tied,
    heads: Heads,
    matched: usize,
    is_known: Arc<AtomicBool>,
}

impl Sniffed {
    /// The stream, and the flag that it raises.
    pub(crate) fn new(
        stream: Stream,
        send: Option<Duration>,
        tied: Tied,
        heads: Heads,
    ) -> (Sniffed, Arc<AtomicBool>) {
        let known = Arc::new(AtomicBool::new(false));
        let (stall, is_known) = (Stall::new(send, heads.clone()), known.clone());
        (Sniffed { stream, stall, tied, heads, matched: 0, is_known }, known)
    }

    fn saw(&mut self, bytes: &[u8]) {
        if self.matched >= PREFACE.len() || bytes.is_empty() {
            return;
        }
        let rest = &PREFACE[self.matched..];
        let count = bytes.len().min(rest.len());
        if bytes[..count] == rest[..count] {
            self.matched += count;
        } else {
            self.matched = PREFACE.len();
            self.heads.wait();
        }
        if self.matched == PREFACE.len() {
            self.is_known.store(true, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        ready!(self.tied.look(cx, read))?;
        self.saw(&buf.filled()[before..]);
        self.heads.heard();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall.look(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.stall.look(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.stall.look(cx, ended)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stall.look(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
