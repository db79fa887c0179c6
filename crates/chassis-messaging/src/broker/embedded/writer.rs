//! The one task that writes: everything that has come in, in one transaction.
//!
//! A commit costs a sync of the disk. While one runs, publishes and answers
//! gather; the next takes them all. Answers alone wait a moment for company.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Error, Result};
use sqlx::Sqlite;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::DropGuard;

use super::files::Files;
use super::group::{Changes, Group, Seq};
use super::{BrokerConfig, Cell, Core, Reply, WINDOW, store, tail};
use crate::message::Message;

/// The most commands of one transaction.
const BATCH: usize = 512;

/// How long answers wait for company.
const LINGER: Duration = Duration::from_millis(5);

/// How often messages that are too old are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub(super) enum Command {
    Publish(Arc<Message>, Reply<()>),
    Open { group: String, topic: String, reply: Reply<Arc<Cell>> },
    Delete { topic: String, seq: Seq, reply: Reply<bool> },
}

pub(super) struct Writer {
    core: Arc<Core>,
    commands: mpsc::Receiver<Command>,
    /// Kept until the store is closed: the lock must outlive the last write.
    _files: Files,
    /// Bytes of messages stored.
    bytes: u64,
    max_bytes: u64,
    max_age: Duration,
    dead_letter_max_age: Duration,
    duplicate_window: Duration,
    names: HashMap<(String, String), i64>,
    /// Tells, also where the runtime drops this task, that the file is free.
    /// The last field, because fields are dropped in order.
    _closed: DropGuard,
}

/// What one transaction did, to be told once it is committed.
#[derive(Default)]
struct Outcome {
    /// By place in the batch; `None` for a message that was there already.
    stored: Vec<Result<Option<Seq>>>,
    bytes: u64,
}

impl Writer {
    pub(super) fn new(
        core: Arc<Core>,
        commands: mpsc::Receiver<Command>,
        files: Files,
        bytes: u64,
        config: &BrokerConfig,
    ) -> Writer {
        Writer {
            _closed: core.closed.clone().drop_guard(),
            core,
            commands,
            _files: files,
            bytes,
            max_bytes: config.max_bytes,
            max_age: config.max_age,
            dead_letter_max_age: config.dead_letter_max_age,
            duplicate_window: config.duplicate_window,
            names: HashMap::new(),
        }
    }

    /// Runs until the broker is closed or the last handle is gone.
    pub(super) async fn run(mut self) {
        self.sweep().await;
        let mut sweep = interval_at(Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let core = self.core.clone();
            tokio::select! {
                () = core.closing.cancelled() => {}
                _ = sweep.tick() => self.sweep().await,
                count = self.commands.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                }
                () = core.dirty.notified() => self.linger(&mut batch).await,
            }
            let last = core.closing.is_cancelled();
            if last {
                // Takes no more, and still gives what waits in the queue.
                self.commands.close();
                while batch.len() < BATCH && self.commands.recv_many(&mut batch, BATCH).await > 0 {}
            }
            self.write(&mut batch).await;
            if last && self.commands.is_empty() {
                break;
            }
        }
        self.save_groups().await;
        self.core.store.close().await;
    }

    async fn linger(&mut self, batch: &mut Vec<Command>) {
        let until = Instant::now() + LINGER;
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            _ = self.commands.recv_many(batch, BATCH) => {}
        }
    }

    async fn write(&mut self, batch: &mut Vec<Command>) {
        let mut publishes = Vec::new();
        let mut opens = Vec::new();
        let mut deletes = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Publish(message, reply) => publishes.push((message, reply)),
                Command::Open { group, topic, reply } => opens.push((group, topic, reply)),
                Command::Delete { topic, seq, reply } => deletes.push((topic, seq, reply)),
            }
        }
        self.write_messages(publishes).await;
        for (group, topic, reply) in opens {
            // Whoever asked may have gone.
            let _ = reply.send(self.open(group, topic).await);
        }
        for (topic, seq, reply) in deletes {
            let _ = reply.send(self.delete(&topic, seq).await);
        }
    }

    async fn write_messages(&mut self, publishes: Vec<(Arc<Message>, Reply<()>)>) {
        let size: u64 = publishes.iter().map(|(message, _)| message.size() as u64).sum();
        if self.bytes + size > self.max_bytes {
            self.make_room(size).await;
        }
        let dirty = self.collect();
        if publishes.is_empty() && dirty.is_empty() {
            return;
        }
        let handed_over = self.core.tail.sent();
        match self.commit(&publishes, &dirty).await {
            Ok(outcome) => {
                self.bytes += outcome.bytes;
                let newest = outcome.stored.iter().zip(&publishes).rev();
                let newest = newest.filter_map(|(stored, (message, _))| {
                    Some((stored.as_ref().ok().copied().flatten()?, message))
                });
                if let Some((seq, message)) = newest.into_iter().next() {
                    // The file is locked, so nobody takes its end away meanwhile.
                    self.core.tail.stored(handed_over, seq, || tail::known_by(message));
                }
                for ((message, reply), stored) in publishes.into_iter().zip(outcome.stored) {
                    let answer = stored.map(|seq| {
                        if let Some(seq) = seq {
                            self.offer(seq, &message);
                        }
                    });
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(error = %error.chain(), "the embedded broker cannot write");
                restore(dirty);
                for (_, reply) in publishes {
                    let _ = reply.send(Err(unwritable()));
                }
                // What is due stays due; do not spin on a full disk.
                sleep(Duration::from_millis(200)).await;
                self.core.dirty.notify_one();
            }
        }
    }

    async fn commit(
        &self,
        publishes: &[(Arc<Message>, Reply<()>)],
        dirty: &[Dirty],
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let remembered_since = self.core.clock.before(self.duplicate_window);
        let mut tx = self.core.store.begin().await?;
        for (message, _) in publishes {
            let size = message.size() as u64;
            let stored = if self.bytes + outcome.bytes + size > self.max_bytes {
                Err(full())
            } else {
                let now = self.core.clock.now();
                Ok(store::insert(&mut tx, message, now, remembered_since).await?)
            };
            if matches!(stored, Ok(Some(_))) {
                outcome.bytes += size;
            }
            outcome.stored.push(stored);
        }
        for dirty in dirty {
            store::save(&mut tx, dirty.cell.id, &dirty.changes).await?;
        }
        tx.commit().await?;
        Ok(outcome)
    }

    /// Shows a stored message to the groups of its topic.
    fn offer(&self, seq: Seq, message: &Arc<Message>) {
        let topics = self.core.topics.lock();
        for cell in topics.get(&message.topic).into_iter().flatten() {
            cell.group.lock().offer(seq, message);
            cell.wake.notify_waiters();
        }
    }

    /// Opens a group. Nothing is published meanwhile, so its head is right.
    async fn open(&mut self, name: String, topic: String) -> Result<Arc<Cell>> {
        let known = self.names.get(&(name.clone(), topic.clone()));
        if let Some(cell) = known.and_then(|&id| self.core.cell(&topic, id)) {
            return Ok(cell);
        }
        let mut tx = self.core.store.begin().await?;
        let stored = store::open_group(&mut tx, &name, &topic).await?;
        tx.commit().await?;
        let cell = Arc::new(Cell {
            id: stored.id,
            name: name.clone(),
            topic: topic.clone(),
            group: Group::new(WINDOW, stored.floor, stored.head, stored.progress).into(),
            wake: tokio::sync::Notify::new(),
            reading: tokio::sync::Mutex::new(()),
        });
        self.names.insert((name, topic.clone()), stored.id);
        self.core.topics.lock().entry(topic).or_default().push(cell.clone());
        Ok(cell)
    }

    /// Removes a message, also from what the groups of its topic have in memory.
    async fn delete(&mut self, topic: &str, seq: Seq) -> Result<bool> {
        let mut tx = self.core.store.begin().await?;
        let size = store::delete(&mut tx, topic, seq).await?;
        tx.commit().await?;
        let Some(size) = size else { return Ok(false) };
        self.bytes = self.bytes.saturating_sub(size);
        let topics = self.core.topics.lock();
        for cell in topics.get(topic).into_iter().flatten() {
            cell.group.lock().finish(seq);
            cell.wake.notify_waiters();
        }
        self.core.dirty.notify_one();
        Ok(true)
    }

    fn collect(&self) -> Vec<Dirty> {
        let topics = self.core.topics.lock();
        let cells = topics.values().flatten();
        cells
            .filter_map(|cell| {
                let mut group = cell.group.lock();
                if !group.is_dirty() {
                    return None;
                }
                let saved_floor = group.saved_floor();
                Some(Dirty { changes: group.changes(), saved_floor, cell: cell.clone() })
            })
            .collect()
    }

    async fn save_groups(&mut self) {
        self.write_messages(Vec::new()).await;
    }

    /// Removes what is too old.
    async fn sweep(&mut self) {
        let time = self.core.clock.before(self.max_age);
        let dead_time = self.core.clock.before(self.dead_letter_max_age);
        loop {
            match self.remove(Removal::Older { time, dead_time }).await {
                Ok(0) => return,
                Ok(bytes) => self.bytes = self.bytes.saturating_sub(bytes),
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "cannot remove old messages");
                    return;
                }
            }
        }
    }

    /// Removes what all groups have had, until `size` more bytes fit.
    async fn make_room(&mut self, size: u64) {
        self.sweep().await;
        let time = self.core.clock.before(self.duplicate_window);
        while self.bytes + size > self.max_bytes {
            match self.remove(Removal::Answered(time)).await {
                Ok(0) => return,
                Ok(bytes) => self.bytes = self.bytes.saturating_sub(bytes),
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "cannot remove answered messages");
                    return;
                }
            }
        }
    }

    async fn remove(&self, removal: Removal) -> Result<u64> {
        let mut tx: chassis_data::Tx<Sqlite> = self.core.store.begin().await?;
        let bytes = match removal {
            Removal::Older { time, dead_time } => {
                store::remove_older(&mut tx, time, dead_time).await?
            }
            Removal::Answered(time) => store::remove_answered(&mut tx, time).await?,
        };
        tx.commit().await?;
        Ok(bytes)
    }
}

enum Removal {
    Older { time: i64, dead_time: i64 },
    Answered(i64),
}

struct Dirty {
    cell: Arc<Cell>,
    changes: Changes,
    saved_floor: Seq,
}

fn restore(dirty: Vec<Dirty>) {
    for Dirty { cell, changes, saved_floor } in dirty {
        cell.group.lock().not_stored(&changes, saved_floor);
    }
}

fn unwritable() -> Error {
    Error::unavailable("BROKER_UNWRITABLE", "the embedded broker cannot write just now")
}

fn full() -> Error {
    Error::new(
        Code::ResourceExhausted,
        "BROKER_FULL",
        "the embedded broker is full of messages that some group has not had yet",
    )
}
