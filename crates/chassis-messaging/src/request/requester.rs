//! The side that asks: open requests by number, and the task that reads replies.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::metrics::LATENCY_BUCKETS;
use chassis_core::{Context, Counter, Deadline, Env, Error, Gauge, Result, Span, SpanKind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Request, wire};
use crate::broker::{Broker, Parcel, Parcels, Topics, Transient};
use crate::message::Message;

/// How many requests, and how long they may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequesterConfig {
    /// How many requests may wait for a reply at the same time; more are refused.
    pub max_open: usize,
    /// How long a request may take, where the caller's own deadline is not nearer.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for RequesterConfig {
    fn default() -> RequesterConfig {
        RequesterConfig { max_open: 1000, timeout: Duration::from_secs(5) }
    }
}

/// Sends requests and waits for their replies. Clones share one inbox; the last one
/// closes it.
#[derive(Clone)]
pub struct Requester {
    shared: Arc<Shared>,
}

struct Shared {
    broker: Broker,
    env: Env,
    config: RequesterConfig,
    /// Where replies come to, each below a number of its own.
    inbox: String,
    numbers: AtomicU64,
    places: Semaphore,
    open: Arc<Open>,
    refused: Counter,
    _reader: AbortOnDropHandle<()>,
}

/// The requests that wait; `None` once nobody reads replies any more.
struct Open {
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Message>>>>,
    count: Gauge,
    late: Counter,
}

impl Requester {
    /// A requester of the service that `env` is, with an inbox of its own.
    ///
    /// Dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` with the reason `BROKER_CANNOT_REQUEST` where this broker
    /// carries no requests, `INVALID_REQUESTER_CONFIG` for numbers that make no sense;
    /// `UNAVAILABLE` where the broker does not answer.
    pub async fn connect(env: &Env, broker: &Broker, config: RequesterConfig) -> Result<Requester> {
        if config.max_open == 0 || config.max_open > Semaphore::MAX_PERMITS {
            let message = "requester: max_open must be at least 1";
            return Err(Error::failed_precondition("INVALID_REQUESTER_CONFIG", message));
        }
        let inbox = format!("reply-{}", Uuid::now_v7().simple());
        let parcels = transient(broker)?.listen(Topics::Below(inbox.clone()), None).await?;
        let metrics = env.metrics();
        let open = Arc::new(Open {
            waiting: Mutex::new(Some(HashMap::new())),
            count: metrics.gauge("requests_open", "Requests that wait for a reply.", &[]),
            late: metrics.counter(
                "requests_late_replies",
                "Replies that came when nobody waited any more.",
                &[],
            ),
        });
        let reader = AbortOnDropHandle::new(env.spawn(read_replies(parcels, open.clone())));
        let shared = Shared {
            broker: broker.clone(),
            env: env.clone(),
            inbox,
            numbers: AtomicU64::new(0),
            places: Semaphore::new(config.max_open),
            config,
            open,
            refused: metrics.counter("requests_refused", "Requests that found too many open.", &[]),
            _reader: reader,
        };
        Ok(Requester { shared: Arc::new(shared) })
    }

    /// Asks, and waits for the reply until the caller's deadline, at most for
    /// [`RequesterConfig::timeout`].
    ///
    /// Dropping the future gives up: the request may be handled all the same, and its
    /// reply is dropped.
    ///
    /// # Errors
    ///
    /// What the responder says; `RESOURCE_EXHAUSTED` with the reason
    /// `TOO_MANY_OPEN_REQUESTS`; `UNAVAILABLE` with the reason `NO_RESPONDER` where
    /// nobody answers this topic, or where the broker is away; `DEADLINE_EXCEEDED` where
    /// no reply came in time. Those that were provably not handled say so
    /// ([`Error::was_not_sent`]).
    pub async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply> {
        let message = Message::event(&self.shared.env.info().name, request);
        let reply = self.exchange(R::TOPIC, message?).await?;
        wire::read(&reply)
    }

    async fn exchange(&self, topic: &'static str, message: Message) -> Result<Message> {
        let shared = &self.shared;
        let context = Context::try_current()
            .unwrap_or_else(|| Context::background(&shared.env))
            .child()
            .with_deadline(Deadline::after(shared.config.timeout));
        let deadline = context.deadline().unwrap_or_else(|| Deadline::after(shared.config.timeout));
        deadline.check()?;
        let Ok(_place) = shared.places.try_acquire() else {
            shared.refused.inc();
            let message = "too many requests wait for their replies";
            let error = Error::resource_exhausted("TOO_MANY_OPEN_REQUESTS", message);
            return Err(error.not_sent());
        };
        let mut span = Span::start(&context, SpanKind::Client, format!("request {topic}"));
        if span.is_recording() {
            span.set("messaging.operation.type", "send");
            span.set("messaging.destination.name", topic);
            span.set("messaging.message.id", message.id.clone());
        }
        let started = Instant::now();
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let (waiting, reply) = Waiting::begin(&shared.open, number)?;
        let message = wire::with_time(message.with_context(&context), deadline.remaining());
        let reply_to = Some(format!("{}.{number}", shared.inbox));
        let work = async {
            let parcel = Parcel { to: topic.to_owned(), reply_to, message };
            transient(&shared.broker)?.send(parcel).await?;
            reply.await.map_err(|_| closed())
        };
        let result = match deadline.run(work).await {
            Ok(result) => result,
            Err(_) => Err(Error::deadline_exceeded("NO_REPLY", "no reply came in time")),
        };
        drop(waiting);
        if let Err(error) = &result {
            span.fail(error.message().to_owned());
        }
        let seconds = shared.env.metrics().histogram(
            "request_seconds",
            "From a request to its reply or failure.",
            &[("topic", topic)],
            LATENCY_BUCKETS,
        );
        seconds.observe_traced(started.elapsed().as_secs_f64(), context.trace());
        result
    }
}

impl std::fmt::Debug for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requester").field("inbox", &self.shared.inbox).finish_non_exhaustive()
    }
}

/// An open request; dropping it forgets it.
struct Waiting<'a> {
    open: &'a Open,
    number: u64,
}

impl Waiting<'_> {
    fn begin(open: &Open, number: u64) -> Result<(Waiting<'_>, oneshot::Receiver<Message>)> {
        let (sender, reply) = oneshot::channel();
        let mut waiting = open.waiting.lock();
        let table = waiting.as_mut().ok_or_else(|| closed().not_sent())?;
        table.insert(number, sender);
        open.count.inc();
        Ok((Waiting { open, number }, reply))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.open.count.dec();
        if let Some(table) = self.open.waiting.lock().as_mut() {
            table.remove(&self.number);
        }
    }
}

async fn read_replies(mut parcels: Box<dyn Parcels>, open: Arc<Open>) {
    while let Some(Parcel { to, message, .. }) = parcels.next().await {
        let number = to.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let waiting = number.and_then(|number| open.waiting.lock().as_mut()?.remove(&number));
        let took = waiting.is_some_and(|waiting| waiting.send(message).is_ok());
        if !took {
            // Too late, or the second reply.
            open.late.inc();
        }
    }
    // Whoever waits learns at once that nothing comes any more.
    open.waiting.lock().take();
}

pub(super) fn transient(broker: &Broker) -> Result<&dyn Transient> {
    broker.transient().ok_or_else(|| {
        let message = "this broker carries no requests";
        Error::failed_precondition("BROKER_CANNOT_REQUEST", message)
    })
}

fn closed() -> Error {
    Error::unavailable("BROKER_CLOSED", "the broker was closed, no reply can come")
}
