//! The life of one connection: first bytes, requests, age, drain, end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, routing::future::RouteFuture};
use http::{HeaderValue, Request, Version, header::CONNECTION};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use pin_project_lite::pin_project;
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::{ServerConfig, sniff::Sniffed};

/// HTTP/2: how often a quiet peer is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// HTTP/2: how long it may take to answer that.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2: streams reset by the peer that may wait to be accepted (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// HTTP/2: bytes of answers that may wait in memory for one slow stream.
const MAX_SEND_BUFFER: usize = 256 * 1024;

/// What a server allows its connections.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) max_header_bytes: usize,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_age: Option<Duration>,
}

impl From<&ServerConfig> for Limits {
    fn from(config: &ServerConfig) -> Limits {
        Limits {
            max_connections: config.max_connections,
            header_timeout: config.header_timeout,
            max_header_bytes: config.max_header_bytes,
            max_concurrent_streams: config.max_concurrent_streams,
            max_age: Some(config.max_connection_age).filter(|age| !age.is_zero()),
        }
    }
}

/// A connection that was accepted and not yet served.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) router: Router,
    pub(super) limits: Arc<Limits>,
    /// Whether answers end their connection: clients leave one after the other with an answer
    /// in hand, and a close finds nobody who has just sent a request.
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) drain: CancellationToken,
    pub(super) abort: CancellationToken,
}

/// What the connection's timer waits for.
enum Timer {
    FirstBytes,
    Age,
    Nothing,
}

impl Connection {
    /// Serves until either side ends it, the drain is over, or it is cut.
    pub(super) async fn serve(self) {
        let Connection { stream, peer, router, limits, leaving, drain, abort } = self;
        // Answers are written whole; waiting for more bytes only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let (stream, is_known) = Sniffed::new(stream);
        let builder = builder(&limits);
        let service = PerConnection { router, peer, leaving };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let accepted = Instant::now();
        let mut timer = pin!(tokio::time::sleep(limits.header_timeout));
        let mut waits_for = Timer::FirstBytes;
        let mut drained = pin!(drain.cancelled());
        let mut aborted = pin!(abort.cancelled());
        let mut is_ending = false;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        // The client's doing: not worth more than a debug line.
                        tracing::debug!(%error, %peer, "connection ended");
                    }
                    return;
                }
                () = aborted.as_mut() => return,
                () = drained.as_mut(), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = timer.as_mut(), if !matches!(waits_for, Timer::Nothing) => {
                    match (&waits_for, limits.max_age) {
                        (Timer::FirstBytes, _) if !is_known.load(Ordering::Relaxed) => return,
                        (Timer::FirstBytes, Some(age)) => {
                            waits_for = Timer::Age;
                            timer.as_mut().reset(accepted + age.mul_f64(1.0 + fastrand::f64() / 10.0));
                        }
                        (Timer::Age, _) => {
                            waits_for = Timer::Nothing;
                            is_ending = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        _ => waits_for = Timer::Nothing,
                    }
                }
            }
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The router with what is known of one connection.
struct PerConnection {
    router: Router,
    peer: SocketAddr,
    leaving: Arc<AtomicBool>,
}

impl hyper::service::Service<Request<Incoming>> for PerConnection {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let leaving = (request.version() < Version::HTTP_2).then(|| self.leaving.clone());
        // A router is always ready, and its clone is one counter.
        Answer { route: self.router.clone().call(request), leaving }
    }
}

pin_project! {
    /// The router's answer, and with HTTP/1 the last one if the service is leaving. HTTP/2 has
    /// GOAWAY for that, which loses nothing.
    struct Answer {
        #[pin]
        route: RouteFuture<Infallible>,
        leaving: Option<Arc<AtomicBool>>,
    }
}

impl Future for Answer {
    type Output = Result<axum::response::Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.route.poll(cx));
        if let (Ok(answer), Some(leaving)) = (&mut answer, this.leaving)
            && leaving.load(Ordering::Relaxed)
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
