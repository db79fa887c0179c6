//! One endpoint: what goes out with an attempt, and what comes of it.
//!
//! The headers are written here, because only here it is known that the attempt goes out: the
//! time that is left, and how many attempts came before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chassis_core::metrics::{Counter, Metrics};
use chassis_core::{BoxError, BoxFuture};
use chassis_discovery::{ClientConfig, Target};
use chassis_net::{KeepAlive, once};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tower::Service;

use super::answer::Answer;
use super::connection::Line;
use super::replay::Replay;
use crate::timeout;

/// How many attempts of the same call came before this one (gRFC A6).
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// Made once, since each attempt has it.
static TIMEOUT: HeaderName = HeaderName::from_static(timeout::HEADER);
/// What the calling library is, as the protocol wants it to be said.
const USER_AGENT: &str = concat!("grpc-rust-chassis/", env!("CARGO_PKG_VERSION"));
/// Up to so many endpoints are connected to as soon as they are known. Of more than that a
/// client calls some seldom, and their connections would be idle ones.
const WARM: usize = 32;

/// What the transports of one channel have in common.
#[derive(Clone)]
pub(super) struct Wire {
    connect_timeout: Duration,
    keep_alive: KeepAlive,
    first: Counter,
    again: Counter,
    /// One more than there are transports.
    lines: Arc<()>,
}

impl Wire {
    pub(super) fn new(config: &ClientConfig, target: &Target, metrics: &Metrics) -> Wire {
        let attempts = |which| {
            metrics.counter(
                "client_attempts",
                "Attempts of calls: the first one, and retries and hedges.",
                &[("service", &target.service), ("protocol", &target.protocol), ("attempt", which)],
            )
        };
        Wire {
            connect_timeout: config.connect_timeout(),
            keep_alive: KeepAlive {
                every: Some(config.grpc.keep_alive_interval).filter(|every| !every.is_zero()),
                timeout: config.grpc.keep_alive_timeout,
            },
            first: attempts("first"),
            again: attempts("again"),
            lines: Arc::default(),
        }
    }

    /// The transport to one endpoint.
    pub(super) fn to(&self, address: SocketAddr) -> Transport {
        let line = Line::new(address, self.connect_timeout, self.keep_alive);
        if Arc::strong_count(&self.lines) <= WARM {
            line.warm();
        }
        Transport {
            line,
            _counted: Arc::clone(&self.lines),
            // An address is always a valid authority. Should it ever not be, the call fails.
            authority: Authority::try_from(address.to_string()).ok(),
            wire: self.clone(),
        }
    }

    fn stamp(&self, request: &mut Request<Replay>) {
        // A stream that is meant to last has no deadline: only its caller knows how long.
        if let Some(deadline) = request.body().deadline() {
            // That of the whole call, as gRFC A6 has it: the answer may be a stream, which lasts
            // longer than an attempt waits for its beginning. An attempt that is given up is
            // cancelled, which the server hears.
            if let Ok(value) = HeaderValue::try_from(timeout::format(deadline.remaining())) {
                request.headers_mut().insert(&TIMEOUT, once(value));
            }
        }
        match request.body().previous_attempts() {
            0 => self.first.inc(),
            previous => {
                self.again.inc();
                request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(previous));
            }
        }
    }
}

/// Sends calls to one endpoint.
#[derive(Clone)]
pub(super) struct Transport {
    line: Line,
    _counted: Arc<()>,
    authority: Option<Authority>,
    wire: Wire,
}

impl Service<Request<Replay>> for Transport {
    type Response = Response<Answer<Incoming>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Replay>) -> Self::Future {
        self.wire.stamp(&mut request);
        if let Err(error) = self.address(&mut request) {
            return Box::pin(std::future::ready(Err(error.into())));
        }
        let line = self.line.clone();
        match line.now() {
            // It is on its way before it is waited for: a future with room for the whole call
            // would cost more to move about than the call itself.
            Ok(mut sender) => {
                let answer = sender.try_send_request(request);
                Box::pin(async move { again(answer.await, &line).await })
            }
            Err(trying) => Box::pin(async move {
                let mut sender = line.when(trying).await?;
                again(sender.try_send_request(request).await, &line).await
            }),
        }
    }
}

impl Transport {
    fn address(&self, request: &mut Request<Replay>) -> Result<(), http::Error> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.clone();
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = Version::HTTP_2;
        let agent = HeaderValue::from_static(USER_AGENT);
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        Ok(())
    }
}

/// The answer of the connection that was there. One that has ended since gives the call back,
/// which then goes over the next one; a second time is for the retry above, which may go
/// elsewhere.
async fn again(
    answer: Result<Response<Incoming>, TrySendError<Request<Replay>>>,
    line: &Line,
) -> Result<Response<Answer<Incoming>>, BoxError> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(mut refused) => match refused.take_message() {
            Some(request) => line.sender().await?.send_request(request).await?,
            None => return Err(refused.into_error().into()),
        },
    };
    Ok(Answer::peek(answer, &mut Context::from_waker(Waker::noop())))
}
