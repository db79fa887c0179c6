//! One endpoint: one HTTP/2 connection, made when the first call needs it and
//! again after it broke.
//!
//! What goes out with an attempt is written here, because only here it is known that it goes
//! out: the time that is left, and how many attempts came before.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chassis_core::Deadline;
use chassis_core::metrics::{Counter, Metrics};
use chassis_discovery::{ClientConfig, Target};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Channel, Endpoint, Error};
use tower::Service;

use super::answer::Answer;
use super::replay::Replay;
use crate::timeout;

/// How often a silent server with calls under way is asked whether it is there.
/// Not below what servers tolerate (gRPC's minimum is ten seconds).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long it has to answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many attempts of the same call came before this one (gRFC A6).
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// What the transports of one channel have in common.
#[derive(Clone)]
pub(super) struct Wire {
    connect_timeout: Duration,
    attempt_timeout: Duration,
    first: Counter,
    again: Counter,
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
            attempt_timeout: config.attempt_timeout,
            first: attempts("first"),
            again: attempts("again"),
        }
    }

    /// The transport to one endpoint. Nothing is connected yet.
    pub(super) fn to(&self, address: SocketAddr) -> Transport {
        // An address is always a valid authority. Should it ever not be, the empty
        // URI fails at the first call, with a connect error that names it.
        let uri = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query("/")
            .build()
            .unwrap_or_default();
        let channel = Endpoint::from(uri)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_lazy();
        Transport { channel, wire: self.clone() }
    }

    fn stamp(&self, request: &mut Request<Replay>) {
        // A stream that is meant to last has no deadline: only its caller knows how long.
        if let Some(deadline) = request.extensions().get::<Deadline>() {
            let left = deadline.remaining().min(self.attempt_timeout);
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
    channel: Channel,
    wire: Wire,
}

impl Service<Request<Replay>> for Transport {
    type Response = Response<Answer>;
    type Error = Error;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: Request<Replay>) -> Answering {
        self.wire.stamp(&mut request);
        Answering { answer: self.channel.call(request.map(Body::new)) }
    }
}

pin_project! {
    /// The answer's head, with what has come of its body. Dropping it cancels the call.
    pub(super) struct Answering {
        #[pin]
        answer: ResponseFuture,
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().answer.poll(cx));
        Poll::Ready(answer.map(|answer| Answer::peek(answer, cx)))
    }
}
