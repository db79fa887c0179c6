//! The side that answers: a component with so many hands and a short queue.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::metrics::LATENCY_BUCKETS;
use chassis_core::{
    BoxFuture, Code, Component, Counter, Deadline, Env, Error, Histogram, Ready, Result, Shutdown,
    Span, SpanKind, propagation,
};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::requester::transient;
use super::{Request, wire};
use crate::broker::{Broker, Parcel, Parcels, Topics};
use crate::message::Message;
use crate::topic::{validate_group, validate_topic};

/// How many hands, and how much patience.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponderConfig {
    /// How many requests of one topic are answered at the same time.
    pub concurrency: usize,
    /// How many more may wait for a hand; the rest is told `RESPONDER_BUSY`.
    pub queue: usize,
    /// How long one answer may take, where the caller's time is not shorter.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for ResponderConfig {
    fn default() -> ResponderConfig {
        ResponderConfig { concurrency: 32, queue: 64, timeout: Duration::from_secs(10) }
    }
}

/// A named `async fn(state: S, request: R) -> Result<R::Reply>`.
pub trait Answer<S, R: Request>: Send + Sync + 'static {
    /// What it returns.
    type Future: Future<Output = Result<R::Reply>> + Send;

    /// Begins to answer a request.
    fn answer(&self, state: S, request: R) -> Self::Future;
}

impl<F, Fut, S, R> Answer<S, R> for F
where
    F: Fn(S, R) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R::Reply>> + Send,
    R: Request,
{
    type Future = Fut;

    fn answer(&self, state: S, request: R) -> Fut {
        self(state, request)
    }
}

/// Answers requests: a component. See the [module](super).
///
/// Several processes of one group share the requests. A handler gets no transaction and
/// no inbox: a caller that got no reply may ask again, so give requests that change
/// something an idempotency key.
#[must_use = "a responder does nothing until it runs as a component"]
pub struct Responder<S> {
    broker: Broker,
    group: String,
    state: S,
    config: ResponderConfig,
    topics: BTreeMap<&'static str, BTreeMap<&'static str, Arc<dyn AnyAnswer<S>>>>,
    /// What was wrong while it was put together; said when it is checked.
    problem: Option<String>,
}

impl<S: Clone + Send + Sync + 'static> Responder<S> {
    /// A responder for `group`, usually the name of the service. Each handler gets a
    /// clone of `state`.
    pub fn new(broker: &Broker, group: impl Into<String>, state: S) -> Self {
        Responder {
            broker: broker.clone(),
            group: group.into(),
            state,
            config: ResponderConfig::default(),
            topics: BTreeMap::new(),
            problem: None,
        }
    }

    /// The same responder with other settings.
    pub fn with_config(mut self, config: ResponderConfig) -> Self {
        self.config = config;
        self
    }

    /// Answers `R` with a named `async fn(state, request) -> Result<R::Reply>`.
    ///
    /// Older versions of `R` are [turned](crate::event::Upcasts) into it. A second handler
    /// for the same type is an error when the responder starts.
    pub fn on<R: Request>(mut self, answer: impl Answer<S, R>) -> Self {
        let typed = Arc::new(Typed::<R, _> { answer, request: PhantomData });
        let handlers = self.topics.entry(R::TOPIC).or_default();
        for kind in R::upcasts().kinds().into_iter().chain([R::TYPE]) {
            if handlers.insert(kind, typed.clone()).is_some() {
                self.problem = Some(format!("two handlers for {kind} on {}", R::TOPIC));
            }
        }
        self
    }

    async fn serve(self, env: Env, ready: Ready, shutdown: Shutdown) -> Result<()> {
        self.validate()?;
        let mut desks = Vec::new();
        for (topic, handlers) in self.topics {
            let address = Topics::One(topic.to_owned());
            let transient = transient(&self.broker)?;
            let parcels = transient.listen(address, Some(self.group.clone())).await?;
            let desk = Desk {
                meters: Meters::new(&env, topic),
                env: env.clone(),
                broker: self.broker.clone(),
                topic,
                state: self.state.clone(),
                hands: Semaphore::new(self.config.concurrency),
                config: self.config.clone(),
                handlers,
            };
            desks.push((Arc::new(desk), parcels));
        }
        ready.ready();
        // Dropping the set, as an abort does, ends what it holds.
        let mut topics = JoinSet::new();
        for (desk, parcels) in desks {
            topics.spawn(env.scope(receive(desk, parcels, shutdown.clone())));
        }
        while let Some(ended) = topics.join_next().await {
            ended.map_err(Error::internal)??;
        }
        Ok(())
    }
}

impl<S: Clone + Send + Sync + 'static> Component for Responder<S> {
    fn name(&self) -> Cow<'static, str> {
        "responder".into()
    }

    fn describe(&self) -> String {
        let topics: Vec<_> = self.topics.keys().copied().collect();
        format!("{} answers {}", self.group, topics.join(", "))
    }

    fn validate(&self) -> Result<()> {
        if let Some(problem) = &self.problem {
            return Err(Error::failed_precondition("DUPLICATE_HANDLER", problem.clone()));
        }
        validate_group(&self.group)?;
        let ResponderConfig { concurrency, queue, timeout } = &self.config;
        if !(1..=10_000).contains(concurrency) || *queue > 100_000 || timeout.is_zero() {
            let message = "responder: concurrency must be between 1 and 10000, queue at most \
                 100000, timeout more than zero";
            return Err(Error::invalid_argument("INVALID_RESPONDER_CONFIG", message));
        }
        self.topics.keys().try_for_each(|topic| validate_topic(topic))
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(self.serve(env, ready, shutdown))
    }
}

impl<S> std::fmt::Debug for Responder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder")
            .field("group", &self.group)
            .field("topics", &self.topics.keys())
            .finish_non_exhaustive()
    }
}

/// A handler whose types are no longer visible.
trait AnyAnswer<S>: Send + Sync {
    fn answer(&self, state: S, message: &Message) -> BoxFuture<'_, Result<Message>>;
}

struct Typed<R, A> {
    answer: A,
    request: PhantomData<fn() -> R>,
}

impl<S: Send + 'static, R: Request, A: Answer<S, R>> AnyAnswer<S> for Typed<R, A> {
    fn answer(&self, state: S, message: &Message) -> BoxFuture<'_, Result<Message>> {
        let request = message.to_event::<R>();
        Box::pin(async move {
            let reply = self.answer.answer(state, request?).await?;
            wire::reply(&reply)
        })
    }
}

struct Meters {
    answered: Counter,
    failed: Counter,
    busy: Counter,
    expired: Counter,
    duration: Histogram,
}

impl Meters {
    fn new(env: &Env, topic: &str) -> Meters {
        let metrics = env.metrics();
        let responses = |result| {
            let labels = [("topic", topic), ("result", result)];
            metrics.counter("responses", "Requests, by what became of them.", &labels)
        };
        Meters {
            answered: responses("answered"),
            failed: responses("failed"),
            busy: responses("busy"),
            expired: responses("expired"),
            duration: metrics.histogram(
                "response_seconds",
                "How long answering took.",
                &[("topic", topic)],
                LATENCY_BUCKETS,
            ),
        }
    }
}

/// Where the requests of one topic are answered.
struct Desk<S> {
    env: Env,
    broker: Broker,
    topic: &'static str,
    state: S,
    config: ResponderConfig,
    hands: Semaphore,
    handlers: BTreeMap<&'static str, Arc<dyn AnyAnswer<S>>>,
    meters: Meters,
}

async fn receive<S: Clone + Send + Sync + 'static>(
    desk: Arc<Desk<S>>,
    mut parcels: Box<dyn Parcels>,
    shutdown: Shutdown,
) -> Result<()> {
    let mut work = JoinSet::new();
    let most = desk.config.concurrency + desk.config.queue;
    let ended = loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => break Ok(()),
            Some(_) = work.join_next(), if !work.is_empty() => {}
            parcel = parcels.next() => match parcel {
                Some(parcel) if work.len() >= most => desk.refuse(parcel).await,
                Some(parcel) => {
                    let (desk, env) = (desk.clone(), desk.env.clone());
                    work.spawn(env.scope(async move { desk.run(parcel).await }));
                }
                None => break Err(Error::unavailable(
                    "BROKER_CLOSED",
                    "the broker was closed while requests were answered",
                )),
            },
        }
    };
    drop(parcels);
    let rest = async { while work.join_next().await.is_some() {} };
    if shutdown.drain_deadline().run(rest).await.is_err() {
        tracing::warn!(topic = desk.topic, "drain time is over, requests stay unanswered");
    }
    ended
}

impl<S: Clone + Send + Sync + 'static> Desk<S> {
    async fn refuse(&self, parcel: Parcel) {
        self.meters.busy.inc();
        let busy = Error::new(
            Code::ResourceExhausted,
            "RESPONDER_BUSY",
            "the responder has too many requests already",
        );
        self.send(parcel.reply_to, wire::failure(&busy)).await;
    }

    async fn run(&self, parcel: Parcel) {
        let _counted = self.env.in_flight().enter("request");
        let Parcel { reply_to, message, .. } = parcel;
        let time = wire::time_of(&message).unwrap_or(self.config.timeout);
        let deadline = Deadline::after(time.min(self.config.timeout));
        let Ok(Ok(_hand)) = deadline.run(self.hands.acquire()).await else {
            // Whoever asked has given up.
            self.meters.expired.inc();
            tracing::warn!(topic = self.topic, "a request waited longer than its caller");
            return;
        };
        let started = Instant::now();
        let context = propagation::extract_from_within(&self.env, |name| message.header(name));
        let context = context.with_deadline(deadline);
        let mut span = Span::start(&context, SpanKind::Server, format!("answer {}", self.topic));
        if span.is_recording() {
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", self.topic);
            span.set("messaging.message.id", message.id.clone());
        }
        let work = async {
            let answer = AssertUnwindSafe(deadline.run(self.answer(&message))).catch_unwind();
            let answer = answer.await.unwrap_or_else(|_| Ok(Err(Error::internal("it panicked"))));
            let reply = match answer.and_then(|answer| answer) {
                Ok(reply) => {
                    self.meters.answered.inc();
                    reply
                }
                Err(error) => {
                    self.meters.failed.inc();
                    span.fail(error.message().to_owned());
                    let Message { topic, id, .. } = &message;
                    tracing::warn!(
                        %topic, message_id = %id,
                        error.code = error.code().as_str(),
                        error.reason = error.reason(),
                        error = %error.chain(),
                        "request failed"
                    );
                    wire::failure(&error)
                }
            };
            self.meters.duration.observe_traced(started.elapsed().as_secs_f64(), context.trace());
            self.send(reply_to, reply).await;
        };
        context.clone().scope(work).await;
    }

    async fn answer(&self, message: &Message) -> Result<Message> {
        match self.handlers.get(message.kind.as_str()) {
            Some(handler) => handler.answer(self.state.clone(), message).await,
            None => {
                let text = format!("nobody here answers requests of type {:?}", message.kind);
                Err(Error::new(Code::Unimplemented, "UNKNOWN_REQUEST_TYPE", text))
            }
        }
    }

    async fn send(&self, reply_to: Option<String>, message: Message) {
        let Some(to) = reply_to else { return };
        let Ok(transient) = transient(&self.broker) else { return };
        let parcel = |message| Parcel { to: to.clone(), reply_to: None, message };
        let mut sent = transient.send(parcel(message)).await;
        if let Err(error) = &sent
            && error.reason() == "MESSAGE_TOO_LARGE"
        {
            sent = transient.send(parcel(wire::failure(error))).await;
        }
        match sent {
            // The caller is gone.
            Err(error) if error.reason() == "NO_RESPONDER" => {}
            Err(error) => {
                tracing::warn!(topic = self.topic, error = %error.chain(), "no reply could be sent");
            }
            Ok(()) => {}
        }
    }
}
