//! The wire: a pool of connections for each endpoint of a service.
//!
//! For each, because it goes with its endpoint: when the balancer lets go of one that has left
//! the set, its idle connections are closed, and the busy ones after their answers.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use chassis_core::{Error, Metrics, metrics::Counter};
use chassis_discovery::{ClientConfig, Target};
use http::{HeaderName, HeaderValue, Request, Uri, Version, uri::Authority, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::Service;

use super::{error, payload::Payload};
use crate::REQUEST_TIMEOUT_MS;

/// Tells the callee how many attempts of the same call came before this one, so that it can
/// tell repetition from demand. Its gRPC sister is `grpc-previous-rpc-attempts`.
pub(super) const PREVIOUS_ATTEMPTS: &str = "x-previous-attempts";
/// Made once, since each attempt has it.
static TIMEOUT: HeaderName = HeaderName::from_static(REQUEST_TIMEOUT_MS);
/// How long an idle connection is kept. Shorter than the header time-out of our servers, which
/// close what is idle: a request must not meet a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most idle connections that are kept to one endpoint.
const MAX_IDLE: usize = 64;

/// Makes the pools of a client's endpoints.
pub(super) struct Pools {
    builder: legacy::Builder,
    connector: HttpConnector,
    attempt_timeout: Duration,
    attempts: Attempts,
}

impl Pools {
    pub(super) fn new(config: &ClientConfig, target: &Target, metrics: Option<&Metrics>) -> Pools {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(60)));
        connector.set_connect_timeout(Some(config.connect_timeout()));
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE);
        let attempts = Attempts::bind(metrics, target);
        Pools { builder, connector, attempt_timeout: config.attempt_timeout, attempts }
    }

    /// The transport to one endpoint.
    pub(super) fn transport(&self, address: SocketAddr) -> Transport {
        Transport(Arc::new(Pool {
            client: self.builder.build(self.connector.clone()),
            authority: Authority::try_from(address.to_string()).ok(),
            attempt_timeout: self.attempt_timeout,
            attempts: self.attempts.clone(),
        }))
    }
}

/// Sends requests to one endpoint. Each call has a clone of it.
#[derive(Clone)]
pub(super) struct Transport(Arc<Pool>);

struct Pool {
    client: legacy::Client<HttpConnector, Body>,
    // Always there: an address and a port are an authority.
    authority: Option<Authority>,
    attempt_timeout: Duration,
    attempts: Attempts,
}

/// Counters of attempts, the first ones and the others.
#[derive(Clone)]
struct Attempts {
    first: Counter,
    again: Counter,
}

impl Attempts {
    fn bind(metrics: Option<&Metrics>, target: &Target) -> Attempts {
        let counter = |which| match metrics {
            Some(metrics) => metrics.counter(
                "client_attempts",
                "Attempts of calls: the first one, and retries and hedges.",
                &[("service", &target.service), ("protocol", &target.protocol), ("attempt", which)],
            ),
            None => Counter::default(),
        };
        Attempts { first: counter("first"), again: counter("again") }
    }
}

impl Service<Request<Payload>> for Transport {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        Sending(match self.0.prepare(request) {
            Ok(request) => Ok(self.0.client.request(request)),
            Err(error) => Err(Some(error)),
        })
    }
}

/// The answer, or what was wrong with the request. hyper's future is a box already.
pub(super) struct Sending(Result<legacy::ResponseFuture, Option<Error>>);

impl Future for Sending {
    type Output = Result<http::Response<Incoming>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Ok(answer) => Pin::new(answer).poll(cx).map_err(error::from_transport),
            Err(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl Pool {
    fn prepare(&self, request: Request<Payload>) -> Result<Request<Body>, Error> {
        let (mut parts, payload) = request.into_parts();
        let mut target = parts.uri.into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = self.authority.clone();
        parts.uri = Uri::from_parts(target).map_err(Error::internal)?;
        // A forwarded request may have come in by HTTP/2; this connection is HTTP/1.1.
        parts.version = Version::HTTP_11;
        // Said anew with each attempt: what is left is less than at the first.
        let left = match payload.deadline() {
            Some(deadline) => {
                deadline.check()?;
                deadline.remaining().min(self.attempt_timeout)
            }
            None => self.attempt_timeout,
        };
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        parts.headers.insert(&TIMEOUT, HeaderValue::from(left));
        match payload.previous_attempts() {
            0 => self.attempts.first.inc(),
            previous => {
                self.attempts.again.inc();
                parts.headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(previous));
            }
        }
        Ok(Request::from_parts(parts, payload.into_body()))
    }
}
