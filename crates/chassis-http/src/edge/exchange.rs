//! One request and its answer: counted, timed, recorded and logged when it ends.
//!
//! It ends when it is dropped, so it ends exactly once and on every path: with the answer,
//! with the last byte of a streamed one, or when the client goes away and hyper drops the
//! future in the middle.

use std::{cell::Cell, net::IpAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use chassis_core::{Context, InFlightGuard, Priority, Span, SpanKind, propagation};
use chassis_net::{AddressText, once};
use http::{HeaderName, Method, StatusCode, uri::PathAndQuery};
use http_body::Body as _;
use tokio::time::Instant;

use super::{
    Shared,
    body::Watched,
    metrics::{RouteMetrics, method_label},
    request_id,
};
use crate::problem::Cause;

/// The status under which an exchange is counted whose client went away (as nginx has it).
const CLIENT_CLOSED: u16 = 499;

const REQUEST_ID: HeaderName = HeaderName::from_static(propagation::REQUEST_ID);

/// A request from its head to the end of its answer.
pub(super) struct Exchange {
    context: Context,
    route: Arc<RouteMetrics>,
    span: Span,
    method: &'static str,
    path: Option<PathAndQuery>,
    peer: Option<IpAddr>,
    begun: Instant,
    /// How long it took, if that is known before its end.
    took: Option<Duration>,
    status: Option<StatusCode>,
    cause: Option<Cause>,
    cut: bool,
    shed: bool,
    slow_after: Duration,
    slow: bool,
    _in_flight: InFlightGuard,
}

impl Exchange {
    pub(super) fn begin(
        shared: &Shared,
        route: Arc<RouteMetrics>,
        begun: Instant,
        context: &Context,
        request: &Request,
        peer: Option<IpAddr>,
    ) -> Exchange {
        let Shared { in_flight, slow_after, .. } = shared;
        let method = method_label(request.method());
        let mut span = Span::start(context, SpanKind::Server, "");
        if span.is_recording() {
            span.rename(match route.template() {
                Some(template) => [method, " ", template].concat(),
                None => method.to_owned(),
            });
        }
        route.active().inc();
        Exchange {
            context: context.clone(),
            route,
            span,
            method,
            path: request.uri().path_and_query().cloned(),
            peer,
            begun,
            took: None,
            status: None,
            cause: None,
            cut: false,
            shed: false,
            slow_after: *slow_after,
            slow: false,
            _in_flight: in_flight.enter(),
        }
    }

    pub(super) fn has_route(&self) -> bool {
        self.route.template().is_some()
    }

    /// Notes that it was refused because there was no room: what this server is made to do, and
    /// no failure of it.
    pub(super) fn was_shed(&mut self) {
        self.shed = true;
    }

    /// Sends the answer on its way; the exchange ends with it, in its place.
    pub(super) fn answer(place: &mut Option<Exchange>, mut response: Response) -> Response {
        let Some(exchange) = place else { return response };
        exchange.status = Some(response.status());
        // By its head: the rest of an answer may be a stream that is meant to last.
        let elapsed = exchange.begun.elapsed();
        exchange.slow = !exchange.slow_after.is_zero() && elapsed >= exchange.slow_after;
        exchange.cause = response.extensions_mut().remove::<Cause>();
        if let Some(id) = request_id(&exchange.context) {
            response.headers_mut().insert(REQUEST_ID, once(id));
        }
        // A buffered answer is as good as sent; only a streamed one is worth a wrapper.
        let is_buffered = response.body().size_hint().exact().is_some();
        if is_buffered || exchange.method == Method::HEAD.as_str() {
            exchange.took = Some(elapsed);
            *place = None;
            return response;
        }
        let exchange = place.take();
        response.map(|body| Body::new(Watched::new(body, exchange)))
    }

    /// Ends an exchange whose answer did not reach its last byte.
    pub(super) fn cut(mut self) {
        self.cut = true;
    }

    fn end(&mut self) {
        let took = self.took.unwrap_or_else(|| self.begun.elapsed());
        let elapsed = took.as_secs_f64();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        let method = self.method;
        self.route.active().dec();
        self.route.observe(method, status, elapsed, self.context.trace());

        let path = path_of(self.path.as_ref());
        let mut texts = TEXTS.take();
        texts.write(method, path, status, self.peer);
        let (message, client) = (&*texts.message, self.peer.map(|_| &*texts.client));

        let error = self.cause.as_ref().map(|cause| &*cause.0);
        if self.span.is_recording() {
            self.span.set("http.request.method", method);
            if let Some(template) = self.route.template() {
                self.span.set("http.route", template);
            }
            self.span.set("url.path", path);
            self.span.set("http.response.status_code", status.to_string());
            if let Some(client) = client {
                self.span.set("client.address", client);
            }
            if status >= 500 {
                let reason = error.map_or("HTTP", |error| error.reason()).to_owned();
                self.span.set("error.type", reason.clone());
                self.span.fail(error.map_or(reason, chassis_core::Error::chain));
            }
        }

        let route = self.route.template();
        // To the nearest microsecond.
        let duration_ms = (elapsed * 1e6 + 0.5) as u64 as f64 / 1e3;
        let code = error.map(|error| error.code().as_str());
        let reason = error.map(chassis_core::Error::reason);
        let cut = self.cut.then_some(true);
        let shed = self.shed.then_some(true);
        let slow = self.slow.then_some(true);
        let priority = Some(self.context.priority())
            .filter(|priority| *priority != Priority::Normal)
            .map(Priority::as_str);
        let is_usual = code.is_none() && priority.is_none() && !self.cut && !self.slow;
        // The query stays out of the log: it is where callers put what nobody should read.
        macro_rules! access {
            ($level:ident $($more:tt)*) => {
                tracing::event!(
                    target: "access",
                    tracing::Level::$level,
                    message,
                    http.request.method = method,
                    http.route = route,
                    url.path = path,
                    http.response.status_code = status,
                    duration_ms,
                    client.address = client,
                    $($more)*
                )
            };
        }
        macro_rules! unusual {
            ($level:ident $($more:tt)*) => {
                access!(
                    $level
                    error.code = code,
                    error.reason = reason,
                    $($more)*
                    priority,
                    shed,
                    slow,
                    cut,
                )
            };
        }
        if status < 500 && is_usual {
            // Nearly all: what they have not costs something too.
            access!(INFO);
        } else if self.shed {
            unusual!(WARN);
        } else if status >= 500 {
            unusual!(ERROR error.chain = error.map(chassis_core::Error::chain),);
        } else if self.slow {
            unusual!(WARN);
        } else {
            unusual!(INFO);
        }
        texts.keep();
    }
}

fn path_of(path: Option<&PathAndQuery>) -> &str {
    path.map_or("", PathAndQuery::path)
}

thread_local! {
    static TEXTS: Cell<Texts> = const { Cell::new(Texts::NONE) };
}

/// Texts of a log line, in memory that the thread keeps.
#[derive(Default)]
struct Texts {
    /// What it says in short.
    message: String,
    /// Who asked last, and that as text: mostly a gateway asks again.
    peer: Option<IpAddr>,
    client: String,
}

impl Texts {
    const NONE: Texts = Texts { message: String::new(), peer: None, client: String::new() };

    /// By hand, because the formatter takes three times as long.
    fn write(&mut self, method: &str, path: &str, status: u16, peer: Option<IpAddr>) {
        self.message.clear();
        let status = StatusCode::from_u16(status);
        for text in [method, " ", path, " ", status.as_ref().map_or("", StatusCode::as_str)] {
            self.message.push_str(text);
        }
        if let Some(address) = peer.filter(|_| self.peer != peer) {
            self.client.clear();
            self.client.push_str(AddressText::new(address).as_str());
            self.peer = peer;
        }
    }

    /// Gives the memory back to the thread, unless it is much.
    fn keep(mut self) {
        const KEPT: usize = 1024;
        self.message.clear();
        self.message.shrink_to(KEPT);
        TEXTS.set(self);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A streamed answer ends outside the handler's scope; its log line must not.
        let context = self.context.clone();
        context.in_scope(|| self.end());
    }
}
