//! What is written down about one call, once, however it ends.
//!
//! The record travels with the answer's body, because a gRPC call ends with its
//! trailers. If it is dropped before, the caller has gone away: that is an end
//! too, and it is called `CANCELLED`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Context, InFlightGuard, Priority, Span, SpanKind};
use chassis_net::AddressText;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::method::{Methods, OTHER};
use super::outcome::Outcome;
use crate::server::BrokenOff;

/// Begins the span of a call. A call that is not sampled costs no name.
pub(crate) fn begin_span(ctx: &Context, kind: SpanKind, name: &str) -> Span {
    let owned = ctx.trace().sampled.then(|| name.to_owned());
    let mut span = Span::start(ctx, kind, owned.unwrap_or_default());
    if span.is_recording() {
        span.set("rpc.system.name", "grpc");
    }
    span
}

/// One call that has not ended yet.
pub(crate) struct Record {
    pub(crate) ctx: Context,
    span: Span,
    methods: Arc<Methods>,
    /// `package.Service/Method`, as the path says it.
    name: String,
    started: Instant,
    side: Side,
    ended: bool,
}

/// Which side of the call writes.
pub(crate) enum Side {
    /// The server counts what is in flight, and logs.
    Server {
        peer: Option<SocketAddr>,
        broken_off: BrokenOff,
        shed: bool,
        slow_after: Duration,
        slow: bool,
        _in_flight: InFlightGuard,
    },
    /// Whoever made the call will be told how it ended, and says so at its edge.
    Client,
}

impl Record {
    pub(crate) fn begin(
        ctx: Context,
        span: Span,
        methods: Arc<Methods>,
        name: String,
        side: Side,
    ) -> Record {
        Record { ctx, span, methods, name, started: Instant::now(), side, ended: false }
    }

    /// Whether this is the side that answers.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.side, Side::Server { .. })
    }

    fn is_abandoned(&self) -> bool {
        matches!(&self.side, Side::Server { broken_off, .. } if broken_off.is_set())
    }

    /// Notes whether it was refused because there was no room: what this server is made to do,
    /// and no failure of it.
    pub(crate) fn was_shed(&mut self, was_shed: bool) {
        if let Side::Server { shed, .. } = &mut self.side {
            *shed = was_shed;
        }
    }

    /// Notes that the answer begins. Whether a call is slow is seen by that: the rest of an
    /// answer may be a stream that is meant to last.
    pub(crate) fn answers(&mut self) {
        if let Side::Server { slow_after, slow, .. } = &mut self.side {
            *slow = !slow_after.is_zero() && self.started.elapsed() >= *slow_after;
        }
    }

    /// Writes it down. Only the first end counts.
    pub(crate) fn end(&mut self, outcome: &Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let gone;
        let outcome = if self.is_abandoned() && outcome.code().is_some_and(is_our_fault) {
            // What the handler could not read is no fault of its own.
            gone = Outcome::failed(Code::Cancelled, "the caller broke off its request");
            &gone
        } else {
            outcome
        };
        let took = self.started.elapsed();
        self.methods.observe(&self.name, outcome, took, self.ctx.trace());
        if self.span.is_recording() {
            self.span.set("rpc.response.status_code", outcome.name());
            if !self.methods.is_known(&self.name) {
                self.span.rename(OTHER);
            }
            if let Outcome::Failed { chain, code, .. } = outcome
                && (!self.is_serving() || is_our_fault(*code))
            {
                self.span.fail(chain.clone());
            }
        }
        if let Side::Server { peer, shed, slow, .. } = self.side {
            let line = Line {
                name: &self.name,
                outcome,
                duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
                peer,
                priority: self.ctx.priority(),
                shed,
                slow,
            };
            // The log layer takes ids from the ambient context; this may run in
            // a drop far from the call's own scope. It is ready at first poll.
            let line = async { log(line) };
            let _ = self.ctx.clone().scope(line).now_or_never();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let gone = "the caller went away";
        self.end(&Outcome::failed(Code::Cancelled, gone));
    }
}

/// What the access log says of a call.
struct Line<'a> {
    name: &'a str,
    outcome: &'a Outcome,
    duration_ms: f64,
    peer: Option<SocketAddr>,
    priority: Priority,
    shed: bool,
    slow: bool,
}

/// What the caller did is information; what we did is an error.
fn log(line: Line<'_>) {
    let Line { name, outcome, duration_ms, peer, priority, shed: was_shed, slow: was_slow } = line;
    let priority = Some(priority).filter(|it| *it != Priority::Normal).map(Priority::as_str);
    let shed = was_shed.then_some(true);
    let slow = was_slow.then_some(true);
    let peer = peer.map(|peer| AddressText::new(peer.ip()));
    let peer = peer.as_ref().map(AddressText::as_str);
    macro_rules! line {
        ($level:ident, $($field:tt)*) => {
            tracing::$level!(
                target: "access",
                duration_ms,
                rpc.method = name,
                rpc.response.status_code = outcome.name(),
                client.address = peer,
                priority,
                shed,
                slow,
                $($field)*
            )
        };
    }
    match outcome {
        Outcome::Ok if was_slow => line!(warn, "{name} OK"),
        Outcome::Ok => line!(info, "{name} OK"),
        Outcome::Failed { code, reason, .. } if was_shed => {
            line!(warn, error.code = code.as_str(), error.reason = reason, "{name} {code}")
        }
        Outcome::Failed { code, reason, chain } if is_our_fault(*code) => line!(
            error,
            error.code = code.as_str(),
            error.reason = reason,
            error = chain,
            "{name} {code}"
        ),
        Outcome::Failed { code, reason, chain } if was_slow => line!(
            warn,
            error.code = code.as_str(),
            error.reason = reason,
            error = chain,
            "{name} {code}"
        ),
        Outcome::Failed { code, reason, chain } => line!(
            info,
            error.code = code.as_str(),
            error.reason = reason,
            error = chain,
            "{name} {code}"
        ),
    }
}

/// A method that does not exist is the caller's mistake.
fn is_our_fault(code: Code) -> bool {
    code.is_server_fault() && code != Code::Unimplemented
}
