//! One request and its answer: counted, timed, recorded and logged when it ends.
//!
//! It ends when it is dropped, so it ends exactly once and on every path: with the answer,
//! with the last byte of a streamed one, or when the client goes away and hyper drops the
//! future in the middle.

use std::{cell::RefCell, net::IpAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use chassis_core::{Context, Gauge, InFlightGuard, Priority, Span, SpanKind, propagation};
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
    active: Gauge,
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
        let Shared { env, metrics, slow_after, .. } = shared;
        let method = method_label(request.method());
        let mut span = Span::start(context, SpanKind::Server, "");
        if span.is_recording() {
            span.rename(match route.template() {
                Some(template) => format!("{method} {template}"),
                None => method.to_owned(),
            });
        }
        let active = metrics.active().clone();
        active.inc();
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
            active,
            _in_flight: env.in_flight().enter("http"),
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
        self.active.dec();
        self.route.duration(method, status).observe_traced(elapsed, self.context.trace());

        let error = self.cause.as_ref().map(|cause| &*cause.0);
        if self.span.is_recording() {
            self.span.set("http.request.method", method);
            if let Some(template) = self.route.template() {
                self.span.set("http.route", template);
            }
            self.span.set("url.path", path_of(self.path.as_ref()));
            self.span.set("http.response.status_code", status.to_string());
            if let Some(peer) = self.peer {
                self.span.set("client.address", peer.to_string());
            }
            if status >= 500 {
                let reason = error.map_or("HTTP", |error| error.reason()).to_owned();
                self.span.set("error.type", reason.clone());
                self.span.fail(error.map_or(reason, chassis_core::Error::chain));
            }
        }

        let route = self.route.template();
        let path = path_of(self.path.as_ref());
        // To the nearest microsecond.
        let duration_ms = (elapsed * 1e6 + 0.5) as u64 as f64 / 1e3;
        let client = self.peer.map(AddressText::new);
        let client = client.as_ref().map(AddressText::as_str);
        let code = error.map(|error| error.code().as_str());
        let reason = error.map(chassis_core::Error::reason);
        let cut = self.cut.then_some(true);
        let shed = self.shed.then_some(true);
        let slow = self.slow.then_some(true);
        let priority = Some(self.context.priority())
            .filter(|priority| *priority != Priority::Normal)
            .map(Priority::as_str);
        let message = message(method, path, status);
        // The query stays out of the log: it is where callers put what nobody should read.
        macro_rules! access {
            ($level:ident $(, $($field:ident).+ = $value:expr)?) => {
                tracing::event!(
                    target: "access",
                    tracing::Level::$level,
                    message = &*message,
                    http.request.method = method,
                    http.route = route,
                    url.path = path,
                    http.response.status_code = status,
                    duration_ms,
                    client.address = client,
                    error.code = code,
                    error.reason = reason,
                    $($($field).+ = $value,)?
                    priority,
                    shed,
                    slow,
                    cut,
                )
            };
        }
        if self.shed {
            access!(WARN);
        } else if status >= 500 {
            access!(ERROR, error.chain = error.map(chassis_core::Error::chain));
        } else if self.slow {
            access!(WARN);
        } else {
            access!(INFO);
        }
        keep(message);
    }
}

fn path_of(path: Option<&PathAndQuery>) -> &str {
    path.map_or("", PathAndQuery::path)
}

thread_local! {
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the log line says in short, in memory that the thread keeps. By hand, because the
/// formatter takes three times as long.
fn message(method: &str, path: &str, status: u16) -> String {
    let mut message = MESSAGE.take();
    message.clear();
    let status = StatusCode::from_u16(status);
    for text in [method, " ", path, " ", status.as_ref().map_or("", StatusCode::as_str)] {
        message.push_str(text);
    }
    message
}

/// Gives the memory of a message back to the thread, unless it is much.
fn keep(message: String) {
    const KEPT: usize = 1024;
    if message.capacity() <= KEPT {
        MESSAGE.set(message);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A streamed answer ends outside the handler's scope; its log line must not.
        let context = self.context.clone();
        context.in_scope(|| self.end());
    }
}
