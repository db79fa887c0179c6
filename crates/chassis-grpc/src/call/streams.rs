//! The messages of a served call: how many there were, and how long each of them was waited for.
//!
//! A stream may last for days, so that what is known at its end is known too late: its messages
//! are counted as they come. A call with one of each kind pays nothing for that: it reads no
//! clock, and its two messages are counted when it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chassis_core::Metrics;
use chassis_core::metrics::{Counter, Histogram};
use tokio::time::Instant;

use super::method::Method;

/// From what no person notices to what idle streams do between two heartbeats, in seconds.
const GAPS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The metrics of one method's messages.
pub(crate) struct Messages {
    received: Counter,
    sent: Counter,
    gaps: OnceLock<[Histogram; 2]>,
    metrics: Metrics,
    method: Box<str>,
}

/// Which way messages go.
#[derive(Clone, Copy)]
enum Way {
    In = 0,
    Out = 1,
}

impl Messages {
    pub(super) fn new(metrics: &Metrics, method: &str) -> Messages {
        let labels = [("rpc_method", method)];
        Messages {
            received: metrics.counter(
                "rpc_server_messages_received",
                "Messages of callers that have come whole.",
                &labels,
            ),
            sent: metrics.counter("rpc_server_messages_sent", "Messages of answers.", &labels),
            gaps: OnceLock::new(),
            metrics: metrics.clone(),
            method: method.into(),
        }
    }

    fn gap(&self, way: Way, gap: Duration) {
        let bind = |direction| {
            self.metrics.histogram(
                "rpc_server_message_gap_seconds",
                "Time in a stream from a message to the next one, and to its end for answers.",
                &[("rpc_method", &self.method), ("direction", direction)],
                GAPS,
            )
        };
        let gaps = self.gaps.get_or_init(|| [bind("received"), bind("sent")]);
        gaps[way as usize].observe(gap.as_secs_f64());
    }
}

/// What the body of a request has seen, for the record of its call, which may end before it.
#[derive(Default)]
pub(crate) struct Received {
    broken_off: AtomicBool,
    method: OnceLock<Arc<Method>>,
    messages: AtomicU64,
    /// Those of them that are in no metric yet.
    uncounted: AtomicU64,
    longest_gap_micros: AtomicU64,
}

impl Received {
    /// Before anything has come; the method, if it is known already.
    pub(crate) fn begin(method: Option<Arc<Method>>) -> Arc<Received> {
        let received = Received::default();
        if let Some(method) = method {
            let _ = received.method.set(method);
        }
        Arc::new(received)
    }

    pub(crate) fn method(&self) -> Option<&Arc<Method>> {
        self.method.get()
    }

    /// Says which method it is, and counts what has come so far.
    pub(super) fn is_of(&self, method: impl FnOnce() -> Arc<Method>) -> &Arc<Method> {
        let method = self.method.get_or_init(method);
        match self.uncounted.swap(0, Ordering::Relaxed) {
            0 => {}
            messages => method.messages().received.add(messages),
        }
        method
    }

    /// Notes that the caller broke off its request.
    pub(crate) fn break_off(&self) {
        self.broken_off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }
}

/// The clock of one direction. It runs from the head of its side, since a message that comes at
/// once with the head is not worth a look at a clock.
#[derive(Debug)]
struct Pace {
    since: Instant,
    longest: Duration,
}

impl Pace {
    fn new(since: Instant) -> Pace {
        Pace { since, longest: Duration::ZERO }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.since, now));
        self.longest = self.longest.max(gap);
        gap
    }
}

/// The body of a request, as it counts.
pub(crate) struct Receiving {
    received: Arc<Received>,
    pace: Pace,
}

impl Receiving {
    pub(crate) fn new(received: Arc<Received>, began: Instant) -> Receiving {
        Receiving { received, pace: Pace::new(began) }
    }

    pub(crate) fn received(&self) -> &Received {
        &self.received
    }

    /// Notes messages that came together, and whether they are the last ones.
    pub(crate) fn add(&mut self, messages: u64, last: bool) {
        if messages == 0 {
            return;
        }
        // Nobody else writes these two, but the record reads them.
        let before = self.received.messages.load(Ordering::Relaxed);
        self.received.messages.store(before + messages, Ordering::Relaxed);
        self.received.uncounted.fetch_add(messages, Ordering::Relaxed);
        if before == 0 {
            if !last {
                self.pace.since = Instant::now();
            }
            return;
        }
        let gap = self.pace.lap();
        let longest = u64::try_from(self.pace.longest.as_micros()).unwrap_or(u64::MAX);
        self.received.longest_gap_micros.store(longest, Ordering::Relaxed);
        if let Some(method) = self.received.method() {
            self.received.is_of(|| Arc::clone(method)).messages().gap(Way::In, gap);
        }
    }
}

/// The messages of an answer.
#[derive(Debug)]
pub(crate) struct Sent {
    messages: u64,
    /// Those of them that are in no metric yet.
    uncounted: u64,
    /// Whether it is known to be a stream: it was waited for, or had a second message.
    streams: bool,
    pace: Pace,
}

impl Sent {
    /// An answer that begins now.
    pub(super) fn new(now: Instant) -> Sent {
        Sent { messages: 0, uncounted: 0, streams: false, pace: Pace::new(now) }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.pace.since = now;
    }

    /// Notes that there is nothing more to be sent for now.
    pub(super) fn wait(&mut self) {
        self.streams = true;
    }

    /// Notes messages that go out together. `method` is asked for if this is a stream.
    pub(super) fn add<'a>(&mut self, messages: u64, method: impl FnOnce() -> &'a Arc<Method>) {
        if messages == 0 {
            return;
        }
        self.messages += messages;
        self.uncounted += messages;
        self.streams |= self.messages > 1;
        if self.streams {
            let gap = self.pace.lap();
            let metrics = method().messages();
            metrics.gap(Way::Out, gap);
            metrics.sent.add(std::mem::take(&mut self.uncounted));
        }
    }

    /// Counts what is not counted yet, and says what the log should hold of a stream.
    pub(super) fn end(&mut self, received: &Received, method: &Arc<Method>) -> Option<Streamed> {
        received.is_of(|| Arc::clone(method));
        if self.uncounted > 0 {
            method.messages().sent.add(std::mem::take(&mut self.uncounted));
        }
        let messages_in = received.messages.load(Ordering::Relaxed);
        if !self.streams && messages_in < 2 {
            return None;
        }
        if self.streams {
            let gap = self.pace.lap();
            method.messages().gap(Way::Out, gap);
        }
        let longest_in = received.longest_gap_micros.load(Ordering::Relaxed);
        let longest_gap = self.pace.longest.max(Duration::from_micros(longest_in));
        Some(Streamed { messages_in, messages_out: self.messages, longest_gap })
    }
}

/// What the log says of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streamed {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) longest_gap: Duration,
}
