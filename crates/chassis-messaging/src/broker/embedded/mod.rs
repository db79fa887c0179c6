//! The broker inside the process: nothing to install, nothing lost.
//!
//! It exists so that a newcomer and a test need no server, and keeps the same
//! contract as JetStream. Messages and the progress of each group are in one
//! SQLite file. A single task writes: it gathers what was published and answered
//! since the last time and commits it at once, so that the price of a commit is
//! shared. What is handed out comes from memory; subscribers are woken, nobody
//! polls.
//!
//! It is not for two processes: progress lives in memory between commits. A file
//! lock refuses the second one, and within a process all who open the same folder
//! share one broker (with the settings of the first).
//!
//! An answer is written with the next batch, a few milliseconds later. A crash in
//! between brings the message again, as a lost answer does on the network.

mod clock;
mod deliveries;
mod files;
mod group;
mod lag;
mod store;
mod tail;
mod transient;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::clock::Clock;
use self::deliveries::EmbeddedDeliveries;
use self::files::Files;
use self::group::{Group, Limits};
use self::store::Store;
use self::transient::Listeners;
use self::writer::{Command, Writer};
use super::browse::{MAX_PAGE, PAGE_BYTES};
use super::tail::{Ledger, StreamTail, lost_error};
use super::{
    BrokerConfig, Browse, Deliveries, Driver, MeasureLag, Page, Publisher, Stored, Subscriber,
    Subscription, Tails, Topics, Transient,
};
use crate::message::Message;
use crate::topic::validate_topic;

/// How many publishes may wait for the writer; more wait at the door.
const QUEUE: usize = 1024;

/// What each group holds in memory, at most: about one more reading of 64
/// messages than this.
const WINDOW: Limits = Limits { messages: 1024, bytes: 8 * 1024 * 1024 };

/// The brokers that are open in this process, by folder.
static OPEN: tokio::sync::Mutex<BTreeMap<PathBuf, Weak<Shared>>> =
    tokio::sync::Mutex::const_new(BTreeMap::new());

/// The broker inside the process.
pub struct Embedded {
    shared: Arc<Shared>,
}

/// What all handles share; the writer ends when the last of them is gone.
struct Shared {
    core: Arc<Core>,
    commands: mpsc::Sender<Command>,
}

/// What the writer shares with the handles.
struct Core {
    store: Store,
    clock: Clock,
    ledger: Arc<Ledger>,
    /// The end of the one stream that there is.
    tail: Arc<StreamTail>,
    topics: Mutex<HashMap<String, Vec<Arc<Cell>>>>,
    /// Who listens to messages that are not stored.
    listeners: Listeners,
    /// Something is to be stored besides messages.
    dirty: Notify,
    /// Set by `close`.
    closing: CancellationToken,
    /// Set once the writer has stopped and the file is free.
    closed: CancellationToken,
    max_message_bytes: usize,
    publish_timeout: Duration,
    max_age: Duration,
}

/// One group of one topic.
struct Cell {
    id: i64,
    name: String,
    topic: String,
    group: Mutex<Group>,
    /// Something may have become deliverable.
    wake: Notify,
    /// Held by whoever reads the window on.
    reading: tokio::sync::Mutex<()>,
}

impl Embedded {
    /// Opens the broker in `folder`, or joins it where this process has it open.
    ///
    /// Dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` with the reason `BROKER_IN_USE` where another
    /// process has it, `BROKER_FOLDER` where the folder cannot be written.
    pub async fn open(folder: &Path, config: &BrokerConfig) -> Result<Embedded> {
        let folder = files::create(folder)?;
        let mut open = OPEN.lock().await;
        open.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = open.get(&folder).and_then(Weak::upgrade)
            && !shared.commands.is_closed()
        {
            return Ok(Embedded { shared });
        }
        let files = Files::lock(folder.clone()).await?;
        let embedded = Embedded::start(files, config).await?;
        open.insert(folder, Arc::downgrade(&embedded.shared));
        Ok(embedded)
    }

    /// Opens a broker of its own in a temporary folder that is removed at the end.
    ///
    /// Dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` with the reason `BROKER_FOLDER` where the system's
    /// temporary folder cannot be written.
    pub async fn temporary(config: &BrokerConfig) -> Result<Embedded> {
        Embedded::start(Files::temporary().await?, config).await
    }

    async fn start(files: Files, config: &BrokerConfig) -> Result<Embedded> {
        let store = Store::open(files.folder()).await?;
        let bytes = store.bytes().await?;
        let ledger = Arc::new(Ledger::default());
        let core = Arc::new(Core {
            store,
            tail: ledger.of(""),
            ledger,
            clock: Clock::start(),
            topics: Mutex::default(),
            listeners: Listeners::default(),
            dirty: Notify::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            max_message_bytes: config.max_message_bytes,
            publish_timeout: config.publish_timeout,
            max_age: config.max_age,
        });
        let (commands, receiver) = mpsc::channel(QUEUE);
        let writer = Writer::new(core.clone(), receiver, files, bytes, config);
        tokio::spawn(writer.run());
        Ok(Embedded { shared: Arc::new(Shared { core, commands }) })
    }
}

impl Core {
    fn cell(&self, topic: &str, id: i64) -> Option<Arc<Cell>> {
        self.topics.lock().get(topic)?.iter().find(|cell| cell.id == id).cloned()
    }
}

impl Shared {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

type Reply<T> = oneshot::Sender<Result<T>>;

fn closed() -> Error {
    Error::unavailable("BROKER_CLOSED", "the embedded broker is closed")
}

impl Publisher for Embedded {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let core = &self.shared.core;
            message.validate(core.max_message_bytes)?;
            if core.tail.is_lost() {
                return Err(lost_error("of the embedded broker"));
            }
            let stored = self.shared.ask(|reply| Command::Publish(Arc::new(message), reply));
            tokio::time::timeout(core.publish_timeout, stored).await.unwrap_or_else(|_| {
                Err(Error::deadline_exceeded(
                    "PUBLISH_TIMEOUT",
                    "the embedded broker did not store the message in time",
                ))
            })
        })
    }

    fn tails(&self) -> Option<&dyn Tails> {
        Some(self)
    }
}

impl Subscriber for Embedded {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>> {
        Box::pin(async move {
            subscription.validate()?;
            let Subscription { group, topic, .. } = subscription.clone();
            let cell = self.shared.ask(|reply| Command::Open { group, topic, reply }).await?;
            cell.group.lock().set_wishes(subscription.max_deliver, subscription.per_key);
            let deliveries = EmbeddedDeliveries::new(self.shared.clone(), cell, &subscription);
            Ok(Box::new(deliveries) as Box<dyn Deliveries>)
        })
    }
}

impl Browse for Embedded {
    fn page(&self, topics: Topics, from: u64, limit: usize) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            topics.validate()?;
            let store = &self.shared.core.store;
            store.page(&topics, from, limit.clamp(1, MAX_PAGE), PAGE_BYTES).await
        })
    }

    fn read(&self, topics: Topics, position: u64) -> BoxFuture<'_, Result<Option<Stored>>> {
        Box::pin(async move {
            let page = self.page(topics, position, 1).await?;
            Ok(page.messages.into_iter().find(|stored| stored.position == position))
        })
    }

    fn delete(&self, topic: String, position: u64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            validate_topic(&topic)?;
            self.shared.ask(|reply| Command::Delete { topic, seq: position, reply }).await
        })
    }
}

impl Driver for Embedded {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.shared.commands.is_closed() {
                return Err(closed());
            }
            self.shared.core.store.check().await
        })
    }

    fn redelivers_within(&self) -> Duration {
        self.shared.core.max_age
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
            self.shared.core.closing.cancel();
            self.shared.core.closed.cancelled().await;
        })
    }
}
