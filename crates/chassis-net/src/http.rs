//! What hyper is told of HTTP.

use std::time::Duration;

use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};

/// HTTP/2: streams reset by the peer that may wait to be accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// HTTP/2: bytes of answers that may wait in memory for one slow stream.
const MAX_SEND_BUFFER: usize = 256 * 1024;

/// HTTP/1: headers that hyper has room for unasked.
const HEADERS_OF_HYPER: usize = 100;

/// What is allowed of HTTP on a connection.
#[derive(Clone, Debug)]
pub struct Http {
    /// Whether HTTP/1 is refused.
    pub only_http2: bool,
    /// The largest head of a request, in bytes; at least 8192.
    pub max_header_bytes: usize,
    /// HTTP/1: headers of a request; hyper's own limit is 100, and no less.
    pub max_headers: usize,
    /// HTTP/2: requests at a time on one connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2: whether a quiet peer is still there.
    pub keep_alive: KeepAlive,
}

/// How a peer is noticed that is gone without a word, on a connection of HTTP/2 with requests
/// under way.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// How often a quiet peer is asked whether it is still there; never if none.
    pub every: Option<Duration>,
    /// How long it may take to answer that.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    /// Every 30 s, and gRPC's 20 s to answer.
    fn default() -> KeepAlive {
        KeepAlive { every: Some(Duration::from_secs(30)), timeout: Duration::from_secs(20) }
    }
}

impl Http {
    /// Without the timer of HTTP/1: see [`heads`](crate::heads).
    pub(crate) fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        if self.only_http2 {
            builder = builder.http2_only();
        }
        builder.http1().header_read_timeout(None).max_buf_size(self.max_header_bytes);
        // Room for so many is on its stack; to ask for it would cost two allocations a request.
        if self.max_headers > HEADERS_OF_HYPER {
            builder.http1().max_headers(self.max_headers);
        }
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_header_list_size(u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .keep_alive_interval(self.keep_alive.every)
            .keep_alive_timeout(self.keep_alive.timeout);
        builder
    }
}
