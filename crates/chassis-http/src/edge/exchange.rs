//! One request and its answer: counted, timed, recorded and logged when it ends.
//!
//! It ends when it is dropped, so it ends exactly once and on every path: with the answer,
//! with the last byte of a streamed one, or when the client goes away and hyper drops the
//! future in the middle.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use chassis_core::{Context, Env, Gauge, InFlightGuard, Priority, Span, SpanKind, propagation};
use chassis_net::{AddressText, once};
use http::{HeaderName, Method, StatusCode, Uri};
use http_body::Body as _;
use tokio::time::Instant;

use super::{
    body::Watched,
    metrics::{EdgeMetrics, RouteMetrics, method_label},
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
    method: Method,
    uri: Uri,
    peer: Option<SocketAddr>,
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
        env: &Env,
        metrics: &EdgeMetrics,
        route: Arc<RouteMetrics>,
        begun: Instant,
        slow_after: Duration,
        context: &Context,
        request: &Request,
    ) -> Exchange {
        let mut span = Span::start(context, SpanKind::Server, "");
        if span.is_recording() {
            let method = method_label(request.method());
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
            method: request.method().clone(),
            uri: request.uri().clone(),
            peer: super::peer(request),
            begun,
            took: None,
            status: None,
            cause: None,
            cut: false,
            shed: false,
            slow_after,
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

    /// Sends the answer on its way; the exchange ends with it.
    pub(super) fn answer(mut self, mut response: Response) -> Response {
        self.status = Some(response.status());
        // By its head: the rest of an answer may be a stream that is meant to last.
        let elapsed = self.begun.elapsed();
        self.slow = !self.slow_after.is_zero() && elapsed >= self.slow_after;
        self.cause = response.extensions_mut().remove::<Cause>();
        if let Some(id) = request_id(&self.context) {
            response.headers_mut().insert(REQUEST_ID, once(id));
        }
        // A buffered answer is as good as sent; only a streamed one is worth a wrapper.
        let is_buffered = response.body().size_hint().exact().is_some();
        if is_buffered || self.method == Method::HEAD {
            self.took = Some(elapsed);
            return response;
        }
        response.map(|body| Body::new(Watched::new(body, self)))
    }

    /// Ends an exchange whose answer did not reach its last byte.
    pub(super) fn cut(mut self) {
        self.cut = true;
    }

    fn end(&mut self) {
        let elapsed = self.took.unwrap_or_else(|| self.begun.elapsed()).as_secs_f64();
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        let method = method_label(&self.method);
        self.active.dec();
        self.route.duration(method, status).observe_traced(elapsed, self.context.trace());

        let error = self.cause.as_ref().map(|cause| &*cause.0);
        if self.span.is_recording() {
            self.span.set("http.request.method", method);
            if let Some(template) = self.route.template() {
                self.span.set("http.route", template);
            }
            self.span.set("url.path", self.uri.path());
            self.span.set("http.response.status_code", status.to_string());
            if let Some(peer) = self.peer {
                self.span.set("client.address", peer.ip().to_string());
            }
            if status >= 500 {
                let reason = error.map_or("HTTP", |error| error.reason()).to_owned();
                self.span.set("error.type", reason.clone());
                self.span.fail(error.map_or(reason, chassis_core::Error::chain));
            }
        }

        let route = self.route.template();
        let path = self.uri.path();
        let duration_ms = (elapsed * 1e6).round() / 1e3;
        let client = self.peer.map(|peer| AddressText::new(peer.ip()));
        let client = client.as_ref().map(AddressText::as_str);
        let code = error.map(|error| error.code().as_str());
        let reason = error.map(chassis_core::Error::reason);
        let cut = self.cut.then_some(true);
        let shed = self.shed.then_some(true);
        let slow = self.slow.then_some(true);
        let priority = Some(self.context.priority())
            .filter(|priority| *priority != Priority::Normal)
            .map(Priority::as_str);
        // The query stays out of the log: it is where callers put what nobody should read.
        macro_rules! access {
            ($level:ident $(, $($field:ident).+ = $value:expr)?) => {
                tracing::event!(
                    target: "access",
                    tracing::Level::$level,
                    message = tracing::field::debug(Message { method, path, status }),
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
    }
}

/// What the log line says in short. By hand, because the formatter takes three times as long.
struct Message<'a> {
    method: &'a str,
    path: &'a str,
    status: u16,
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = StatusCode::from_u16(self.status);
        for text in [self.method, " ", self.path, " "] {
            f.write_str(text)?;
        }
        f.write_str(status.as_ref().map_or("", StatusCode::as_str))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A streamed answer ends outside the handler's scope; its log line must not.
        self.context.clone().in_scope(|| self.end());
    }
}
