//! NATS JetStream behind the contract.
//!
//! One stream holds the topics of one first segment (`greetings.>`), one durable
//! pull consumer serves one (group, topic). Streams and consumers are created
//! where they are missing and otherwise left as their operator made them, with a
//! warning where one remembers ids for a shorter time than asked.
//!
//! Written against nats-server 2.9, so it uses one filter per consumer, no
//! consumer backoff list and the bare `+TERM`; tested on 2.9 and 2.15. An older server
//! is refused.
//!
//! What a server acknowledges it may still lose: it syncs to disk later (every
//! two minutes by default; see `sync_interval` from 2.10 on), so the crash of a
//! machine, unlike that of a process, can take the last messages. That is found out
//! and said ([`Tails`]), and an [outbox](crate::outbox) publishes again what was lost;
//! run three replicas where it should not come to that.
//!
//! A stream that reaches its `max_bytes` (`broker.max_stream_bytes`), or the limit of
//! its server, refuses to take more, and is then rid of what
//! all groups have had; a publish that finds no room even so is `RESOURCE_EXHAUSTED`
//! with the reason `BROKER_FULL`.
//!
//! Order within a key: JetStream itself keeps none while several messages are in
//! hand. The deliveries of one subscription do, by holding back what is behind
//! an unanswered message of its key. Two processes of one group do not know of
//! each other: there, a redelivery may be overtaken.

mod acks;
mod browse;
mod connect;
mod deliveries;
mod headers;
mod key_order;
mod lag;
mod pull;
mod room;
mod streams;
mod tail;
mod time;
mod transient;
mod uncounted;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Statistics;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use chassis_core::{BoxFuture, Error, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::acks::{Acknowledged, Acks, Unstored};
use self::uncounted::Uncounted;
use super::tail::{Ledger, StreamTail, lost_error};
use super::{
    BrokerConfig, Browse, Deliveries, Driver, MeasureLag, Page, Publisher, Stored, Subscriber,
    Subscription, Tails, Topics, Transient,
};
use crate::message::{DEAD_LETTER_BYTES, Message};
use crate::topic::segment;

/// The server counts the headers as they are written, and a dead letter has more
/// of them than its original.
const PAYLOAD_ROOM: usize = DEAD_LETTER_BYTES + 16 * 1024;

/// How often to look whether there is a connection again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long closing waits for the server to take the last answers.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to NATS with JetStream.
pub struct JetStream {
    shared: Arc<Shared>,
}

struct Shared {
    context: Context,
    acks: Acks,
    config: BrokerConfig,
    /// Counts connections made; changes on each reconnect.
    connections: watch::Receiver<u64>,
    /// By durable consumer: it outlives a subscription.
    uncounted: Mutex<HashMap<String, Arc<Mutex<Uncounted>>>>,
    /// Counts the same, but before anything is sent over a new one.
    statistics: Arc<Statistics>,
    /// The ends of the streams that are known to exist.
    ledger: Arc<Ledger>,
    /// Counts how often a full stream was rid of what all groups have had.
    rooms_made: AtomicU64,
    /// When a stream was looked through for it in vain.
    room_making: tokio::sync::Mutex<BTreeMap<String, Instant>>,
    closing: CancellationToken,
    /// The tasks of the subscriptions.
    pullers: TaskTracker,
}

impl JetStream {
    /// Connects, and checks that the server has JetStream.
    ///
    /// Tries again with growing pauses until `config.connect_timeout`. Dropping
    /// the future gives up.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where no server answers in time; `UNAUTHENTICATED` where it
    /// refuses the credentials; `FAILED_PRECONDITION` with the reason
    /// `BROKER_TOO_OLD` for a server before 2.9, or `JETSTREAM_DISABLED` where it has
    /// no JetStream; `INVALID_ARGUMENT` for a
    /// URL that cannot be read.
    pub async fn connect(url: &str, config: &BrokerConfig) -> Result<JetStream> {
        let (client, connections) = connect::connect(url, config.connect_timeout).await?;
        let context = ContextBuilder::new().timeout(config.publish_timeout).build(client);
        connect::require_jetstream(&context.client(), config.connect_timeout).await?;
        let most = context.client().max_payload().saturating_sub(PAYLOAD_ROOM);
        let max_message_bytes = config.max_message_bytes.min(most);
        let acks = Acks::listen(context.client(), config.publish_timeout).await?;
        let shared = Shared {
            statistics: context.client().statistics(),
            context,
            acks,
            config: BrokerConfig { max_message_bytes, ..config.clone() },
            connections,
            uncounted: Mutex::default(),
            ledger: Arc::default(),
            rooms_made: AtomicU64::new(0),
            room_making: tokio::sync::Mutex::default(),
            closing: CancellationToken::new(),
            pullers: TaskTracker::new(),
        };
        Ok(JetStream { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn connection(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    /// The stream of a topic, where it was looked at over this connection.
    fn ready_now(&self, topic: &str) -> Option<Arc<StreamTail>> {
        let tail = self.ledger.of(segment(topic));
        let ready = connect::is_connected(self.acks.client()) && tail.is_seen(self.connection());
        ready.then_some(tail)
    }

    /// Waits until there is a connection, and the stream of a topic was looked at over
    /// it; at most as long as a publish may take.
    async fn ready(&self, topic: &str) -> Result<Arc<StreamTail>> {
        let client = self.context.client();
        let looked = async {
            let mut connections = self.connections.clone();
            while !connect::is_connected(&client) {
                // Told of a little before or after the state changes.
                let _ = tokio::time::timeout(LOOK_AGAIN, connections.changed()).await;
            }
            self.ensure_stream(topic).await
        };
        let looked = tokio::time::timeout(self.config.publish_timeout, looked).await;
        looked.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Makes the stream of a topic where it is missing, after a look at its end: a
    /// stream that is missing now may have been there before.
    async fn ensure_stream(&self, topic: &str) -> Result<Arc<StreamTail>> {
        let tail = self.ledger.of(segment(topic));
        if !tail.is_seen(self.connection()) {
            self.look_once(&tail).await?;
        }
        Ok(tail)
    }

    /// The stream is gone: look again before the next use.
    fn forget_stream(&self, topic: &str) {
        self.ledger.of(segment(topic)).forget();
    }

    fn may_look(&self, topics: &Topics) -> Result<()> {
        topics.validate()?;
        if self.closing.is_cancelled() { Err(closed()) } else { Ok(()) }
    }

    async fn publish(&self, message: &Message) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        message.validate(self.config.max_message_bytes)?;
        match self.try_publish(message, None, false).await? {
            Tried::Stored => Ok(()),
            Tried::Again { gone } => {
                Box::pin(self.try_publish(message, gone, true)).await.map(drop)
            }
        }
    }

    /// What is seldom awaited is in a box: thousands of these are under way, and all that
    /// they might need takes up room in each.
    async fn try_publish(&self, message: &Message, gone: Option<u64>, last: bool) -> Result<Tried> {
        let headers = headers::block(message, gone)?;
        let topic = &message.topic;
        // What is handed to the client now would go out over the next connection,
        // before anybody has looked at what the server still has.
        let tail = match self.ready_now(topic) {
            Some(tail) => tail,
            None => Box::pin(self.ready(topic)).await?,
        };
        if tail.is_lost() {
            return Err(lost_error(tail.stream()));
        }
        let handed_over = tail.sent();
        match self.acks.publish(topic.clone(), headers, message.payload.clone()).await {
            Ok(Acknowledged { sequence, duplicate: false }) => {
                if !tail.stored(handed_over, sequence, || headers::known_as(message, gone)) {
                    self.ledger.report(&tail);
                }
                Ok(Tried::Stored)
            }
            Ok(Acknowledged { sequence, .. }) => {
                if last || Box::pin(self.has(tail.stream(), sequence)).await? {
                    tail.repeated(handed_over, sequence, || headers::known_as(message, gone));
                    return Ok(Tried::Stored);
                }
                Ok(Tried::Again { gone: Some(sequence) })
            }
            Err(Unstored::NoStream) if !last => {
                self.forget_stream(topic);
                Ok(Tried::Again { gone })
            }
            Err(Unstored::Full(refusal)) => {
                if last || !Box::pin(self.make_room(&tail)).await? {
                    return Err(room::full(tail.stream()).with_source(refusal));
                }
                Ok(Tried::Again { gone })
            }
            Err(unstored) => Err(unstored.into()),
        }
    }
}

/// What became of a try to publish.
enum Tried {
    Stored,
    /// Another try makes sense; under another name where the first one stood at `gone`, and
    /// does not any more.
    Again {
        gone: Option<u64>,
    },
}

impl Publisher for JetStream {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        // Each of its parts has a time limit: making the stream, sending, the answer.
        // The message is lent: moved on, it would have a second place in the future.
        Box::pin(async move { self.shared.publish(&message).await })
    }

    fn tails(&self) -> Option<&dyn Tails> {
        Some(self)
    }
}

impl Subscriber for JetStream {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>> {
        Box::pin(async move {
            subscription.validate()?;
            if self.shared.closing.is_cancelled() {
                return Err(closed());
            }
            let deliveries = pull::start(self.shared.clone(), subscription).await?;
            Ok(Box::new(deliveries) as Box<dyn Deliveries>)
        })
    }
}

impl Browse for JetStream {
    fn page(&self, topics: Topics, from: u64, limit: usize) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            self.shared.may_look(&topics)?;
            browse::page(&self.shared.context, &topics, from, limit).await
        })
    }

    fn read(&self, topics: Topics, position: u64) -> BoxFuture<'_, Result<Option<Stored>>> {
        Box::pin(async move {
            self.shared.may_look(&topics)?;
            browse::read(&self.shared.context, &topics, position).await
        })
    }

    fn delete(&self, topic: String, position: u64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let topic = Topics::One(topic);
            self.shared.may_look(&topic)?;
            browse::delete(&self.shared.context, &topic, position).await
        })
    }
}

impl Driver for JetStream {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.shared.closing.is_cancelled() {
                return Err(closed());
            }
            let client = self.shared.context.client();
            let answer = connect::ask_jetstream(&client);
            match tokio::time::timeout(Duration::from_secs(1), answer).await {
                Ok(answer) => answer,
                Err(_) => Err(unavailable("NATS does not answer")),
            }
        })
    }

    fn redelivers_within(&self) -> Duration {
        self.shared.config.max_age
    }

    fn browse(&self) -> Option<&dyn Browse> {
        Some(self)
    }

    fn lag(&self) -> Option<&dyn MeasureLag> {
        Some(self)
    }

    fn transient(&self) -> Option<&dyn Transient> {
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.closing.cancel();
            self.shared.pullers.close();
            let client = self.shared.context.client();
            let last_words = async {
                self.shared.pullers.wait().await;
                client.flush().await
            };
            // Bounded: the server may be gone.
            let last_words = tokio::time::timeout(CLOSE_PATIENCE, last_words);
            if !matches!(last_words.await, Ok(Ok(()))) {
                tracing::warn!("NATS did not take the last answers; those messages come again");
            }
        })
    }
}

fn closed() -> Error {
    Error::unavailable("BROKER_CLOSED", "the connection to NATS is closed")
}

fn unavailable(message: &'static str) -> Error {
    Error::unavailable("BROKER_UNAVAILABLE", message)
}

fn timed_out() -> Error {
    Error::deadline_exceeded("PUBLISH_TIMEOUT", "NATS did not confirm the message in time")
}
