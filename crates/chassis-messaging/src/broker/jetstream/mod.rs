//! NATS JetStream behind the contract.
//!
//! One stream holds the topics of one first segment (`greetings.>`), one durable
//! pull consumer serves one (group, topic). Streams and consumers are created
//! where they are missing and otherwise left as their operator made them, with a
//! warning where one remembers ids for a shorter time than asked.
//!
//! Written against nats-server 2.9, so it uses one filter per consumer, no
//! consumer backoff list and the bare `+TERM`.
//!
//! What a server acknowledges it may still lose: it syncs to disk later (every
//! two minutes by default; see `sync_interval` from 2.10 on), so the crash of a
//! machine, unlike that of a process, can take the last messages. Keep published
//! outbox rows for a while, and run three replicas where that matters.
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
mod streams;
mod time;
mod transient;
mod uncounted;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use chassis_core::{BoxFuture, Error, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::acks::{Acknowledged, Acks, Unstored};
use self::uncounted::Uncounted;
use super::{
    BrokerConfig, Browse, Deliveries, Driver, MeasureLag, Page, Publisher, Stored, Subscriber,
    Subscription, Topics, Transient,
};
use crate::message::{DEAD_LETTER_BYTES, Message};
use crate::topic::segment;

/// The server counts the headers as they are written, and a dead letter has more
/// of them than its original.
const PAYLOAD_ROOM: usize = DEAD_LETTER_BYTES + 16 * 1024;

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
    /// Streams that are known to exist.
    streams: Mutex<HashSet<String>>,
    /// By durable consumer: it outlives a subscription.
    uncounted: Mutex<HashMap<String, Arc<Mutex<Uncounted>>>>,
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
    /// `JETSTREAM_DISABLED` where it has no JetStream; `INVALID_ARGUMENT` for a
    /// URL that cannot be read.
    pub async fn connect(url: &str, config: &BrokerConfig) -> Result<JetStream> {
        let (client, connections) = connect::connect(url, config.connect_timeout).await?;
        let context = ContextBuilder::new().timeout(config.publish_timeout).build(client);
        connect::require_jetstream(&context.client(), config.connect_timeout).await?;
        let most = context.client().max_payload().saturating_sub(PAYLOAD_ROOM);
        let max_message_bytes = config.max_message_bytes.min(most);
        let acks = Acks::listen(context.client(), config.publish_timeout).await?;
        let shared = Shared {
            context,
            acks,
            config: BrokerConfig { max_message_bytes, ..config.clone() },
            connections,
            streams: Mutex::default(),
            uncounted: Mutex::default(),
            closing: CancellationToken::new(),
            pullers: TaskTracker::new(),
        };
        Ok(JetStream { shared: Arc::new(shared) })
    }
}

impl Shared {
    async fn ensure_stream(&self, topic: &str) -> Result<()> {
        let segment = segment(topic);
        if !self.streams.lock().contains(segment) {
            streams::ensure_stream(&self.context, segment, &self.config).await?;
            self.streams.lock().insert(segment.to_owned());
        }
        Ok(())
    }

    /// The stream is gone: look again before the next use.
    fn forget_stream(&self, topic: &str) {
        self.streams.lock().remove(segment(topic));
    }

    fn may_look(&self, topics: &Topics) -> Result<()> {
        topics.validate()?;
        if self.closing.is_cancelled() { Err(closed()) } else { Ok(()) }
    }

    async fn publish(&self, message: Message) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        message.validate(self.config.max_message_bytes)?;
        for last_try in [false, true] {
            self.ensure_stream(&message.topic).await?;
            let headers = headers::encode(&message)?;
            let (topic, payload) = (message.topic.clone(), message.payload.clone());
            match self.acks.publish(topic, headers, payload).await {
                Ok(Acknowledged { sequence, duplicate }) => {
                    tracing::trace!(id = message.id, sequence, duplicate, "stored");
                    return Ok(());
                }
                Err(Unstored::NoStream) if !last_try => self.forget_stream(&message.topic),
                Err(unstored) => return Err(unstored.into()),
            }
        }
        Ok(())
    }
}

impl Publisher for JetStream {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        // Each of its parts has a time limit: making the stream, sending, the answer.
        Box::pin(self.shared.publish(message))
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
