//! Everything around one call, in one future.
//!
//! On the way in: the caller's context, the deadline, the count of what is in
//! flight, a span if the trace is sampled. On the way out: a timeout or a panic
//! becomes a status, and the end, which for gRPC is in the trailers, is written
//! down once as metric, span and log line.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis_admission::{Door, Pass, RoutePriority, SERVER_OVERLOADED};
use chassis_core::error::panic_text;
use chassis_core::propagation;
use chassis_core::{
    BoxError, BoxFuture, Code, Context, Deadline, Env, Error, InFlightKind, Priority, SpanKind,
};
use chassis_net::{CallHeaders, once};
use chassis_resilience::Class;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use super::config::ServerConfig;
use super::request::{Asked, Refusal};
use crate::IntoStatus;
use crate::call::body::Watched;
use crate::call::compression::{self, Compression};
use crate::call::framing::{Framing, Limit};
use crate::call::method::{Family, Methods};
use crate::call::outcome::Outcome;
use crate::call::record::{Record, Side, begin_span};
use crate::call::streams::{Received, Receiving};
use crate::timeout;

const REQUEST_ID: HeaderName = HeaderName::from_static(propagation::REQUEST_ID);

/// Longest method name that is written down, in bytes.
const MAX_NAME: usize = 256;

/// Makes the [`Calls`] of each connection.
#[derive(Clone)]
pub(super) struct CallsFactory {
    routes: Routes,
    env: Env,
    methods: Arc<Methods>,
    in_flight: InFlightKind,
    request_timeout: Duration,
    slow_after: Duration,
    receive: Limit,
    send: Limit,
    compression: Compression,
    door: Door,
}

/// How the messages of an answer go out.
#[derive(Clone, Copy)]
struct Sending {
    limit: Limit,
    compressed_from: Option<u16>,
}

/// The calls of one connection.
#[derive(Clone)]
pub(super) struct Calls {
    factory: CallsFactory,
    connect_info: TcpConnectInfo,
}

impl CallsFactory {
    pub(super) fn new(
        routes: Routes,
        env: &Env,
        config: &ServerConfig,
        door: Door,
    ) -> CallsFactory {
        let family = Family {
            name: "rpc_server_call_duration_seconds",
            help: "Time that calls took, from the first byte to the status.",
            labels: Vec::new(),
        };
        CallsFactory {
            routes,
            env: env.clone(),
            methods: Arc::new(Methods::new(env.metrics(), family)),
            in_flight: env.in_flight().kind("grpc"),
            request_timeout: config.request_timeout,
            slow_after: config.slow_after,
            receive: Limit::Receive(config.max_receive_message_bytes),
            send: Limit::Send(config.max_send_message_bytes),
            compression: config.compression.both_ways(),
            door,
        }
    }

    pub(super) fn connection(
        self,
        remote_addr: Option<SocketAddr>,
        local_addr: Option<SocketAddr>,
    ) -> Calls {
        Calls { factory: self, connect_info: TcpConnectInfo { local_addr, remote_addr } }
    }
}

impl Calls {
    /// Serves one call. Dropping the future cancels it.
    pub(super) fn call<B>(
        &self,
        mut request: Request<B>,
    ) -> BoxFuture<'static, Result<Response<Body>, Infallible>>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let CallsFactory { env, methods, in_flight, door, .. } = &self.factory;
        let known = CallHeaders::read(request.headers(), timeout::HEADER);
        let asked = known.timeout().and_then(timeout::parse);
        let (asked, deadline) = self.deadlines(asked);
        let mut ctx = propagation::extract(env, |name| known.carried(name)).with_deadline(deadline);
        let name = method_name(request.uri().path());
        let peer = self.connect_info.remote_addr.map(|peer| peer.ip());
        let asked_priority = known.text(propagation::PRIORITY);
        let says_priority = asked_priority.is_some();
        let priority = door.priority(route_priority(door, &name), asked_priority, peer);
        let forced = known.text(propagation::FORCE_TRACE);
        if let Some(sampled) = door.sampled(priority, forced, peer) {
            ctx = ctx.with_sampled(sampled);
        }
        if let Some(priority) = priority.filter(|priority| *priority != Priority::Normal) {
            ctx = ctx.with_priority(priority);
        }
        let began = Instant::now();
        let received = Received::begin(methods.find(&name));
        let CallsFactory { receive, compression, .. } = &self.factory;
        let (receive, compression) = (*receive, *compression);
        let compressed_from =
            compression.sends_from.filter(|_| compression::is_accepted(request.headers()));
        let send = Sending { limit: self.factory.send, compressed_from };
        let inflates = compression.reads && compression::take(request.headers_mut());
        let mut request = request.map(|body| {
            let asked = Asked {
                body,
                framing: Framing::new(receive),
                receiving: Receiving::new(Arc::clone(&received), began),
                refusal: Refusal::None,
            };
            if inflates { compression::inflate(asked, receive) } else { Body::new(asked) }
        });
        if says_priority {
            // What the caller said is decided now: nobody behind us may take it for granted.
            request.headers_mut().remove(propagation::PRIORITY);
        }
        let span = begin_span(&ctx, SpanKind::Server, &name);
        let side = Side::server(
            self.connect_info.remote_addr,
            received,
            self.factory.slow_after,
            in_flight.enter(),
            began,
        );
        let record = Record::begin(ctx.clone(), span, Arc::clone(methods), name, side, began);

        request.extensions_mut().insert(self.connect_info.clone());
        match door.enter(priority, peer) {
            Ok(pass) => {
                // Routes are always ready: they wait inside of the call.
                let answer = self.factory.routes.clone().call(request);
                Box::pin(ctx.scope(respond(answer, deadline, asked, send, record, pass)))
            }
            Err(refused) => {
                let refused = refuse(refused, send, record);
                Box::pin(std::future::ready(Ok(refused)))
            }
        }
    }

    /// Until when the caller waits, and until when an answer must have begun: never later than
    /// the server's own limit. That one does not hold for the rest of an answer, which may be
    /// a stream that is meant to last.
    fn deadlines(&self, asked: Option<Duration>) -> (Option<Deadline>, Deadline) {
        let limit = Deadline::after(self.factory.request_timeout);
        let asked = asked.map(Deadline::after);
        (asked, asked.map_or(limit, |asked| asked.min(limit)))
    }
}

async fn respond(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    deadline: Deadline,
    asked: Option<Deadline>,
    send: Sending,
    record: Record,
    mut pass: Pass,
) -> Result<Response<Body>, Infallible> {
    let answer = async {
        pass.pay().await?;
        Ok::<_, Error>(AssertUnwindSafe(answer).catch_unwind().await)
    };
    let response = match deadline.run(answer).await {
        Ok(Ok(Ok(answer))) => answer?,
        Ok(Ok(Err(panic))) => panicked(&record.ctx, &*panic).into_status().into_http(),
        Ok(Err(refused)) | Err(refused) => refused.into_status().into_http(),
    };
    let outcome = Outcome::of_head(&response);
    // The place is for the work up to here: what streams is bounded by its connection.
    pass.end(class(outcome.as_ref()));
    Ok(finish(response, outcome, asked, send, record))
}

/// The answer to a call that was not let in.
fn refuse(refused: Error, send: Sending, mut record: Record) -> Response<Body> {
    record.was_shed(refused.reason() == SERVER_OVERLOADED);
    let response = refused.into_status().into_http();
    let outcome = Outcome::of_head(&response);
    finish(response, outcome, None, send, record)
}

fn finish(
    mut response: Response<Body>,
    outcome: Option<Outcome>,
    asked: Option<Deadline>,
    send: Sending,
    mut record: Record,
) -> Response<Body> {
    record.answers();
    if let Ok(id) = HeaderValue::from_str(record.ctx.request_id()) {
        response.headers_mut().insert(REQUEST_ID, once(id));
    }
    match outcome {
        Some(outcome) => {
            record.end(&outcome);
            response
        }
        None => {
            let from = send.compressed_from.filter(|_| compression::say(response.headers_mut()));
            response.map(|body| {
                let body = match from {
                    Some(from) => compression::deflate(body, from, send.limit, true),
                    None => body,
                };
                Body::new(Watched::until(asked, body, send.limit, record))
            })
        }
    }
}

/// What an answer says about the room that there is. A refusal of what the caller sent is quick
/// however busy the server is.
fn class(outcome: Option<&Outcome>) -> Class {
    match outcome.and_then(Outcome::code) {
        None => Class::Success,
        Some(code) if code.is_server_fault() && code != Code::Unimplemented => Class::Failure,
        Some(_) => Class::Ignore,
    }
}

/// How important a method is: by its own name, else by its service's. What tells whether the
/// process lives is exempt.
fn route_priority(door: &Door, name: &str) -> RoutePriority {
    if name.starts_with("grpc.health.") || name.starts_with("grpc.reflection.") {
        return RoutePriority::Exempt;
    }
    let of_service = || door.route(name.split_once('/')?.0);
    door.route(name).or_else(of_service).unwrap_or_default()
}

/// The caller learns the id under which the log knows more, and no more.
fn panicked(ctx: &Context, panic: &(dyn Any + Send)) -> Error {
    Error::internal(format!("the handler panicked: {}", panic_text(panic)))
        .with_detail("request_id", ctx.request_id())
}

/// `/package.Service/Method` without its slash, within bounds.
fn method_name(path: &str) -> String {
    let name = path.strip_prefix('/').unwrap_or(path);
    name.chars().take(MAX_NAME).collect()
}
