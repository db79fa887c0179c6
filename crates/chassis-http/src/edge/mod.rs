//! What the chassis does around every request: one tower layer, one future.
//!
//! Request ids, trace, deadline, time-out, panic, body limit, metrics, span and access log
//! are one layer and not nine, because the bill of the usual stack is not the features but
//! the seams: each middleware has its own future, its own look at the headers, its own map.
//! Here the headers are read once, metric handles are bound once per route, an unsampled
//! request makes no span, and a request leaves one log line.
//!
//! The layer stands around the router, so it covers the router's own 404 and 405, and finds the
//! route of a request in a table of its own; see `table`.

mod admit;
mod answering;
mod body;
mod exchange;
mod metrics;
pub(crate) mod panic;
mod table;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    task::{Context as Poller, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath, Request},
    response::{IntoResponse, Response},
};
use chassis_admission::{Door, SERVER_OVERLOADED};
use chassis_core::{
    BoxFuture, Code, Context, Deadline, Env, Error, InFlightKind, Priority, propagation,
};
use chassis_net::CallHeaders;
use chassis_resilience::Class;
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use tokio::time::Instant;
use tower::{Layer, Service};

pub(crate) use self::{
    admit::{RequestLimits, body_over},
    metrics::method_label,
};
use self::{
    answering::Answering,
    exchange::Exchange,
    metrics::{EdgeMetrics, RouteMetrics},
    table::Table,
};
use crate::{ServerConfig, limit::Tripped, problem::Problem};

/// The header that carries the time that is left for a call, in milliseconds.
///
/// Remaining time and not a date, so that the clocks of two machines need not agree.
pub const REQUEST_TIMEOUT_MS: &str = "x-request-timeout-ms";

/// The header that says that a request was refused unread because there was no room, and after
/// how many milliseconds it may come again; elsewhere it may at once. `Retry-After` beside it
/// says the same in whole seconds to everybody else.
pub const RETRY_PUSHBACK_MS: &str = "x-retry-pushback-ms";

/// Puts the chassis around a router.
#[derive(Clone)]
pub(crate) struct EdgeLayer(Arc<Shared>);

struct Shared {
    env: Env,
    in_flight: InFlightKind,
    request_timeout: Duration,
    slow_after: Duration,
    limits: RequestLimits,
    metrics: EdgeMetrics,
    door: Door,
}

impl EdgeLayer {
    pub(crate) fn new(env: &Env, config: &ServerConfig, door: Door) -> EdgeLayer {
        EdgeLayer(Arc::new(Shared {
            env: env.clone(),
            in_flight: env.in_flight().kind("http"),
            request_timeout: config.request_timeout,
            slow_after: config.slow_after,
            limits: config.requests(),
            metrics: EdgeMetrics::bind(env.metrics(), door.clone()),
            door,
        }))
    }

    pub(crate) fn around(self, router: Router) -> Edged {
        match Table::of(&router, &self.0.metrics) {
            Some(table) => {
                let routes = Routes::Known(Arc::new(table));
                Edged::Whole(Edge { inner: router, around: Around { shared: self.0, routes } })
            }
            None => Edged::Each(router.layer(self)),
        }
    }
}

/// A router with the chassis around it, or around each of its routes.
#[derive(Clone)]
pub(crate) enum Edged {
    Whole(Edge<Router>),
    Each(Router),
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        let around = Around { shared: self.0.clone(), routes: Routes::One(Arc::default()) };
        Edge { inner, around }
    }
}

/// The service that [`EdgeLayer`] makes.
#[derive(Clone)]
pub(crate) struct Edge<S> {
    inner: S,
    around: Around,
}

/// All of it but what it stands around.
#[derive(Clone)]
struct Around {
    shared: Arc<Shared>,
    routes: Routes,
}

/// How the route of a request is found.
#[derive(Clone)]
enum Routes {
    Known(Arc<Table>),
    /// By what axum says, where this stands around one route: as long as that is where the first
    /// request went, the next go there too.
    One(Arc<OnceLock<Arc<RouteMetrics>>>),
}

/// What a request waits for.
pub(crate) type Answer = BoxFuture<'static, Result<Response, Infallible>>;

impl Edge<Router> {
    /// The answer to a request, without a copy of this for it.
    pub(crate) fn answer(&self, request: Request) -> Answer {
        self.around.answer(request, |request| self.inner.clone().call(request))
    }
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, poller: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(poller)
    }

    fn call(&mut self, request: Request) -> Answer {
        self.around.answer(request, |request| self.inner.call(request))
    }
}

impl Around {
    fn route(&self, request: &Request) -> Arc<RouteMetrics> {
        let metrics = &self.shared.metrics;
        let first = match &self.routes {
            Routes::Known(table) => {
                let known = table.route(request.uri().path());
                return known.cloned().unwrap_or_else(|| metrics.route(None));
            }
            Routes::One(first) => first,
        };
        let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let known = first.get_or_init(|| metrics.route(template));
        if known.template() == template { known.clone() } else { metrics.route(template) }
    }

    fn answer<F>(&self, mut request: Request, handler: impl FnOnce(Request) -> F) -> Answer
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let shared = &self.shared;
        let route = self.route(&request);
        let peer = peer(&request).map(|peer| peer.ip());
        let known = CallHeaders::read(request.headers(), REQUEST_TIMEOUT_MS);
        let host = admit::check_host(&request, &known);
        let begun = Instant::now();
        let deadline = deadline(&known, begun, shared.request_timeout);
        let mut context =
            propagation::extract(&shared.env, |name| known.carried(name)).with_deadline(deadline);
        let asked = known.text(propagation::PRIORITY);
        let says_priority = asked.is_some();
        let priority = shared.door.priority(route.priority(), asked, peer);
        let forced = known.text(propagation::FORCE_TRACE);
        if let Some(sampled) = shared.door.sampled(priority, forced, peer) {
            context = context.with_sampled(sampled);
        }
        if let Some(priority) = priority.filter(|priority| *priority != Priority::Normal) {
            context = context.with_priority(priority);
        }
        if says_priority {
            // What the caller said is decided now: nobody behind us may take it for granted.
            request.headers_mut().remove(propagation::PRIORITY);
        }
        let exchange = Exchange::begin(shared, route, begun, &context, &request, peer);
        let is_late = deadline.instant() <= begun;
        let admitted = if is_late {
            Err(Deadline::exceeded().not_sent().into())
        } else {
            admit::admit(&mut request, &shared.limits, host)
                .and_then(|tripped| Ok((tripped, shared.door.enter(priority, peer)?)))
        };
        match admitted {
            Ok((tripped, pass)) => {
                // Nothing of the handler runs before the future is polled, inside the scope.
                let handler = handler(request);
                let answering = Answering::new(handler, deadline, exchange, tripped, pass);
                Box::pin(context.scope(answering))
            }
            Err(refused) => Box::pin(std::future::ready(Ok(refuse(refused, exchange)))),
        }
    }
}

fn refuse(refused: Problem, mut exchange: Exchange) -> Response {
    let pushback = pushback(refused.error());
    let mut response = refused.into_response();
    if let Some(pushback) = pushback {
        exchange.was_shed();
        response.headers_mut().insert(RETRY_PUSHBACK_MS, pushback);
    }
    Exchange::answer(&mut Some(exchange), response)
}

/// The earlier of what the caller gives and what the server allows.
fn deadline(known: &CallHeaders<'_>, begun: Instant, most: Duration) -> Deadline {
    let given =
        known.timeout().and_then(|text| text.trim().parse::<u64>().ok()).map(Duration::from_millis);
    Deadline::after_start(begun, given.map_or(most, |given| given.min(most)))
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

/// What an answer says about the room that there is. A refusal of what the client sent is quick
/// however busy the server is.
fn class(status: StatusCode) -> Class {
    if status.is_server_error() {
        Class::Failure
    } else if status.is_client_error() {
        Class::Ignore
    } else {
        Class::Success
    }
}

/// The pause after which a request that was shed may come again.
fn pushback(refused: &Error) -> Option<HeaderValue> {
    let pause = refused.retry_after().filter(|_| refused.reason() == SERVER_OVERLOADED)?;
    Some(HeaderValue::from(pause.as_millis().min(u64::MAX.into()) as u64))
}

/// Makes a problem document out of a refusal that has no body, such as the router's own.
fn complete(response: Response, tripped: Option<&Tripped>, has_route: bool) -> Response {
    let status = response.status();
    // Whatever the handler made of the broken body, this is why it broke.
    if let Some(limit) = tripped.and_then(Tripped::by) {
        return body_over(limit).into_response();
    }
    let is_bare = response.body().size_hint().exact() == Some(0)
        && !response.headers().contains_key(header::CONTENT_TYPE);
    if !is_bare {
        return response;
    }
    let error = match status {
        StatusCode::NOT_FOUND if !has_route => {
            Error::not_found("ROUTE_NOT_FOUND", "there is nothing at this path")
        }
        StatusCode::METHOD_NOT_ALLOWED => Error::new(
            Code::Unimplemented,
            "METHOD_NOT_ALLOWED",
            "this path does not answer to this method; see the Allow header",
        ),
        _ => Error::new(
            Code::from_http_status(status.as_u16()),
            format!("HTTP_{}", status.as_u16()),
            status.canonical_reason().unwrap_or("the request failed"),
        ),
    };
    let (parts, _) = response.into_parts();
    let mut problem = Problem::new(error).with_status(status).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_LENGTH {
            problem.headers_mut().append(name, value.clone());
        }
    }
    problem
}

/// The header under which the caller finds its request in our logs.
fn request_id(context: &Context) -> Option<HeaderValue> {
    HeaderValue::from_bytes(context.request_id_bytes()).ok()
}
