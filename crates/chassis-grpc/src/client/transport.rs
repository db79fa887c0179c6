//! One endpoint: what goes out with an attempt, and what comes of it.
//!
//! The headers are written here, because only here it is known that the attempt goes out: the
//! time that is left, and how many attempts came before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chassis_core::metrics::{Counter, Metrics};
use chassis_core::{BoxError, BoxFuture, Deadline};
use chassis_discovery::{ClientConfig, Target};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use tower::Service;

use super::answer::Answer;
use super::connection::Line;
use super::replay::Replay;
use crate::timeout;

/// How many attempts of the same call came before this one (gRFC A6).
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// What the calling library is, as the protocol wants it to be said.
const USER_AGENT: &str = concat!("grpc-rust-chassis/", env!("CARGO_PKG_VERSION"));
/// Up to so many endpoints are connected to as soon as they are known. Of more than that a
/// client calls some seldom, and their connections would be idle ones.
const WARM: usize = 32;

/// What the transports of one channel have in common.
#[derive(Clone)]
pub(super) struct Wire {
    connect_timeout: Duration,
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
            first: attempts("first"),
            again: attempts("again"),
            lines: Arc::default(),
        }
    }

    /// The transport to one endpoint.
    pub(super) fn to(&self, address: SocketAddr) -> Transport {
        let line = Line::new(address, self.connect_timeout);
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
        if let Some(deadline) = request.extensions().get::<Deadline>() {
            // That of the whole call, as gRFC A6 has it: the answer may be a stream, which lasts
            // longer than an attempt waits for its beginning. An attempt that is given up is
            // cancelled, which the server hears.
            let left = deadline.remaining();
            if let Ok(value) = HeaderValue::try_from(timeout::format(left)) {
                request.headers_mut().insert(timeout::HEADER, value);
            }
        }
        match request.body().previous_attempts() {
            0 => self.first.inc(),
            previous => {
                self.again.inc();
                let name = HeaderName::from_static(PREVIOUS_ATTEMPTS);
                request.headers_mut().insert(name, HeaderValue::from(previous));
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
        let addressed = self.address(&mut request);
        let line = self.line.clone();
        Box::pin(async move {
            addressed?;
            send(&line, request).await
        })
    }
}

impl Transport {
    fn address(&self, request: &mut Request<Replay>) -> Result<(), http::Error> {
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.clone();
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = Version::HTTP_2;
        let agent = HeaderValue::from_static(USER_AGENT);
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        Ok(())
    }
}

/// Sends over the connection that is there. One that has ended since gives the call back, which
/// then goes over the next one; a second time is for the retry above, which may go elsewhere.
async fn send(
    line: &Line,
    request: Request<Replay>,
) -> Result<Response<Answer<Incoming>>, BoxError> {
    let mut sender = line.sender().await?;
    let answer = match sender.try_send_request(request).await {
        Ok(answer) => answer,
        Err(mut refused) => match refused.take_message() {
            Some(request) => line.sender().await?.send_request(request).await?,
            None => return Err(refused.into_error().into()),
        },
    };
    let mut answer = Some(answer);
    std::future::poll_fn(|cx| match answer.take() {
        Some(answer) => Poll::Ready(Ok(Answer::peek(answer, cx))),
        None => Poll::Ready(Err("polled after completion".into())),
    })
    .await
}
