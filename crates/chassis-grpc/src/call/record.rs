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
use tokio::time::Instant;

use super::method::{Methods, OTHER};
use super::outcome::Outcome;
use super::streams::{Received, Sent, Streamed};

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
        received: Arc<Received>,
        sent: Sent,
        shed: bool,
        slow_after: Duration,
        slow: bool,
        _in_flight: InFlightGuard,
    },
    /// Whoever made the call will be told how it ended, and says so at its edge.
    Client,
}

impl Side {
    /// The server's, of a call that began at this instant.
    pub(crate) fn server(
        peer: Option<SocketAddr>,
        received: Arc<Received>,
        slow_after: Duration,
        in_flight: InFlightGuard,
        began: Instant,
    ) -> Side {
        Side::Server {
            peer,
            received,
            sent: Sent::new(began),
            shed: false,
            slow_after,
            slow: false,
            _in_flight: in_flight,
        }
    }
}

impl Record {
    pub(crate) fn begin(
        ctx: Context,
        span: Span,
        methods: Arc<Methods>,
        name: String,
        side: Side,
        started: Instant,
    ) -> Record {
        Record { ctx, span, methods, name, started, side, ended: false }
    }

    /// Whether this is the side that answers.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.side, Side::Server { .. })
    }

    fn is_abandoned(&self) -> bool {
        matches!(&self.side, Side::Server { received, .. } if received.is_broken_off())
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
        if let Side::Server { slow_after, slow, sent, .. } = &mut self.side {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.started);
            *slow = !slow_after.is_zero() && took >= *slow_after;
            sent.begin(now);
        }
    }

    /// Notes messages of the answer.
    pub(crate) fn sends(&mut self, messages: u64) {
        if let Side::Server { received, sent, .. } = &mut self.side {
            // Who sends messages exists.
            sent.add(messages, || received.is_of(|| self.methods.learn(&self.name)));
        }
    }

    /// Notes that the rest of the answer is waited for.
    pub(crate) fn waits(&mut self) {
        if let Side::Server { sent, .. } = &mut self.side {
            sent.wait();
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
        let mut streamed = None;
        if let Side::Server { received, sent, .. } = &mut self.side {
            let method = match received.method() {
                Some(method) => Arc::clone(method),
                None => self.methods.of(&self.name, outcome),
            };
            self.methods.observe(&method, outcome, took, self.ctx.trace());
            streamed = sent.end(received, &method);
        } else {
            let method = self.methods.of(&self.name, outcome);
            self.methods.observe(&method, outcome, took, self.ctx.trace());
        }
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
                duration_ms: millis(took),
                peer,
                priority: self.ctx.priority(),
                shed,
                slow,
                streamed,
            };
            // The log layer takes ids from the ambient context; this may run in
            // a drop far from the call's own scope.
            self.ctx.in_scope(|| log(line));
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
    streamed: Option<Streamed>,
}

/// What the caller did is information; what we did is an error.
fn log(line: Line<'_>) {
    let Line { name, outcome, duration_ms, peer, priority, streamed, .. } = line;
    let (was_shed, was_slow) = (line.shed, line.slow);
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
                messages_in = streamed.map(|it| it.messages_in),
                messages_out = streamed.map(|it| it.messages_out),
                longest_gap_ms = streamed.map(|it| millis(it.longest_gap)),
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

/// Milliseconds with their thousandths.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A method that does not exist is the caller's mistake.
fn is_our_fault(code: Code) -> bool {
    code.is_server_fault() && code != Code::Unimplemented
}
