//! What a service holds: append in a transaction, look at what was parked, replay.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Context, Error, Result, propagation, unix_ms};
use chassis_data::{Backend, Db, Migrations, Tx, params};
use serde::Serialize;

use super::checkpoints;
use super::clock::{Clock, DbTime, millis};
use super::delayed::News;
use super::parts::{PARTITIONS, Parts};
use super::ping::Pinger;
use super::relay::Relay;
use super::replay::replay;
use super::schema::{self, partition};
use super::settings::OutboxConfig;
use super::table::{Table, Want};
use super::turns;
use super::wake::Wake;
use crate::broker::Publisher;
use crate::event::Event;
use crate::failpoint;
use crate::message::{Message, PREVIOUS};

/// The outbox of one database. Cheap to clone.
pub struct Outbox<B: Backend = sqlx::Any> {
    pub(super) db: Db<B>,
    pub(super) source: Arc<str>,
    pub(super) config: OutboxConfig,
    pub(super) clock: Clock,
    /// Tells the relays of this process that a transaction committed.
    pub(super) wake: Arc<Wake>,
    /// Tells those who look after delayed rows that there is another one.
    pub(super) delayed: News,
}

impl<B: Backend> Clone for Outbox<B> {
    fn clone(&self) -> Self {
        Self {
            db: self.db.clone(),
            source: self.source.clone(),
            config: self.config.clone(),
            clock: self.clock.clone(),
            wake: self.wake.clone(),
            delayed: self.delayed.clone(),
        }
    }
}

/// A row that was given up, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// Its place in the table.
    pub seq: i64,
    /// The id of the message.
    pub id: String,
    /// The topic of the message.
    pub topic: String,
    /// The key of the message.
    pub key: Option<String>,
    /// How often the broker refused it.
    pub attempts: i64,
    /// What the broker said last.
    pub reason: String,
}

impl<B: Backend> Outbox<B> {
    /// The outbox in `db` of the service called `source`.
    #[must_use]
    pub fn new(db: &Db<B>, source: impl Into<Arc<str>>) -> Self {
        Self {
            db: db.clone(),
            source: source.into(),
            config: OutboxConfig::default(),
            clock: Clock::database(),
            wake: Wake::new(),
            delayed: News::default(),
        }
    }

    /// The same outbox with other numbers.
    #[must_use]
    pub fn with_config(mut self, config: OutboxConfig) -> Self {
        self.config = config;
        self
    }

    /// The same outbox on another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The tables that the outbox needs, for [`Db::migrate`].
    #[must_use]
    pub fn migrations(&self) -> Migrations {
        schema::migrations(self.db.dialect())
    }

    /// Adds an event to the caller's transaction and gives its message id.
    ///
    /// It is published after the commit, or never if there is none. The message
    /// carries the trace and the request id of the ambient [`Context`].
    ///
    /// Order within a key is the order of appends. Two transactions that append
    /// under one key at the same time have none, so change the row that the key
    /// stands for first: its lock puts them in line.
    ///
    /// Dropping the future leaves the transaction as a failed statement does:
    /// roll it back.
    ///
    /// # Errors
    ///
    /// `INTERNAL` where the event does not serialise, `INVALID_ARGUMENT` for
    /// what no broker takes, and what the database says.
    pub fn append<'a, E: Event>(
        &'a self,
        tx: &'a mut Tx<B>,
        event: &E,
    ) -> impl Future<Output = Result<String>> + Send + use<'a, E, B> {
        // Made here, so that the future does not hold the event.
        let message = Message::event(&self.source, event);
        async move { self.append_message(tx, message?).await }
    }

    /// Adds a message to the caller's transaction and gives its id. See
    /// [`append`](Outbox::append).
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it
    /// back.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for what no broker takes, and what the database says.
    pub async fn append_message(&self, tx: &mut Tx<B>, message: Message) -> Result<String> {
        self.insert(tx, message, None).await
    }

    /// Adds an event that is not published before `delay` has passed, by the clock of
    /// this machine. See [`append_at`](Outbox::append_at).
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it
    /// back.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Outbox::append).
    pub fn append_after<'a, E: Event>(
        &'a self,
        tx: &'a mut Tx<B>,
        delay: Duration,
        event: &E,
    ) -> impl Future<Output = Result<String>> + Send + use<'a, E, B> {
        self.append_at(tx, unix_ms().saturating_add(millis(delay)), event)
    }

    /// Adds an event that is not published before `at`, in unix milliseconds: as durable
    /// as any other, and late by no more than the relay's
    /// [`poll`](OutboxConfig::poll), where a relay runs and the broker answers.
    ///
    /// Until then it holds back nothing. Its place in its key is the moment at which it
    /// is due: what is appended in the meantime is published before it, and of two that
    /// are due at the same moment either may be first. Give it a key of its own where
    /// that matters.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it
    /// back.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Outbox::append).
    pub fn append_at<'a, E: Event>(
        &'a self,
        tx: &'a mut Tx<B>,
        at: i64,
        event: &E,
    ) -> impl Future<Output = Result<String>> + Send + use<'a, E, B> {
        let message = Message::event(&self.source, event);
        async move { self.append_message_at(tx, at, message?).await }
    }

    /// Adds a message that is not published before `at`, in unix milliseconds. See
    /// [`append_at`](Outbox::append_at).
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it
    /// back.
    ///
    /// # Errors
    ///
    /// Those of [`append_message`](Outbox::append_message).
    pub async fn append_message_at(
        &self,
        tx: &mut Tx<B>,
        at: i64,
        message: Message,
    ) -> Result<String> {
        self.insert(tx, message, Some(at)).await
    }

    async fn insert(
        &self,
        tx: &mut Tx<B>,
        mut message: Message,
        at: Option<i64>,
    ) -> Result<String> {
        const NOW: &str = "INSERT INTO chassis_outbox
            (part, time, id, source, kind, topic, msg_key, content_type, headers, payload)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        const LATER: &str = "INSERT INTO chassis_outbox
            (part, time, id, source, kind, topic, msg_key, content_type, headers, payload,
                state, next_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 3, $11)";
        // The size limit is the broker's own; a row over it is parked.
        message.validate(usize::MAX)?;
        if message.has_turn() {
            match at {
                None => turns::take(tx, &mut message, unix_ms()).await?,
                // It takes its place when it is due, and who is before it then is not known.
                Some(_) => drop(message.headers.remove(PREVIOUS)),
            }
        }
        if let Some(context) = Context::try_current() {
            propagation::inject(&context, |name, value| {
                message.headers.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            });
        }
        let headers = serde_json::to_string(&message.headers).map_err(Error::internal)?;
        // Rows without a key have no order to keep: the id spreads them.
        let part = partition(message.key.as_deref().unwrap_or(&message.id));
        let id = message.id.clone();
        let mut values = params![
            part,
            message.time,
            message.id,
            message.source,
            message.kind,
            message.topic,
            message.key,
            message.content_type,
            headers,
            message.payload.to_vec()
        ];
        match at {
            None => {
                tx.execute(NOW, values).await?;
                let wake = self.wake.clone();
                tx.on_commit(move || wake.wake(Parts::from_iter([part])));
            }
            Some(at) => {
                values.extend(params![at]);
                tx.execute(LATER, values).await?;
                let news = self.delayed.clone();
                tx.on_commit(move || news.notify_waiters());
            }
        }
        failpoint::reach("outbox.before_commit").await?;
        Ok(id)
    }

    /// The component that publishes what was appended. Several may run, here and
    /// in other processes: they share the work.
    #[must_use]
    pub fn relay<P: Publisher + Clone>(&self, publisher: &P) -> Relay<B> {
        Relay::new(self.clone(), Arc::new(publisher.clone()))
    }

    /// The component that wakes relays in other processes, for a process that
    /// appends and has no relay of its own (a relay does it too). Without it those
    /// relays find the rows at their next poll. Does nothing on SQLite.
    #[must_use]
    pub fn pinger(&self) -> Pinger<B> {
        Pinger(self.clone())
    }

    /// Messages that wait to be published, some of each partition in their order, as
    /// a relay would read them now. Messages that wait for their next try, and those
    /// behind them, are left out.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn pending(&self, limit: u32) -> Result<Vec<Message>> {
        let want = Want {
            parts: Parts::ALL,
            held: Vec::new(),
            full: Vec::new(),
            per_part: (limit as usize).div_ceil(PARTITIONS),
            bytes: self.config.window_bytes,
        };
        let now = DbTime::new(self.db.clone(), self.clock.clone()).read().await?;
        let found = Table::shared(self.db.clone()).read(&want, now).await?;
        Ok(found.rows.into_iter().take(limit as usize).map(|row| *row.item).collect())
    }

    /// Rows that were given up, oldest first.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        const SQL: &str = "SELECT seq, id, topic, msg_key, attempts, last_error
            FROM chassis_outbox WHERE state = 2 ORDER BY seq LIMIT $1";
        let rows = self.db.fetch_all(SQL, params![i64::from(limit)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Parked {
                    seq: row.int(0)?,
                    id: row.text(1)?.to_owned(),
                    topic: row.text(2)?.to_owned(),
                    key: row.opt_text(3)?.map(str::to_owned),
                    attempts: row.int(4)?,
                    reason: row.opt_text(5)?.unwrap_or_default().to_owned(),
                })
            })
            .collect()
    }

    /// Gives a parked row its attempts back. `false` if `seq` is not parked.
    ///
    /// Rows of its key that were published in the meantime stay before it.
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn retry_parked(&self, seq: i64) -> Result<bool> {
        const SQL: &str = "UPDATE chassis_outbox SET state = 0, attempts = 0, next_at = 0
            WHERE seq = $1 AND state = 2";
        let changed = self.db.execute(SQL, params![seq]).await?;
        self.wake.wake(Parts::ALL);
        Ok(changed == 1)
    }

    /// Gives all parked rows their attempts back, and says how many they were. See
    /// [`retry_parked`](Outbox::retry_parked).
    ///
    /// Dropping the future leaves open for which rows it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn retry_all_parked(&self) -> Result<u64> {
        const SQL: &str = "UPDATE chassis_outbox SET state = 0, attempts = 0, next_at = 0
            WHERE state = 2";
        let changed = self.db.execute(SQL, Vec::new()).await?;
        self.wake.wake(Parts::ALL);
        Ok(changed)
    }

    /// Removes a parked row for good. `false` if `seq` is not parked.
    ///
    /// What its event says is then known to nobody else. Dropping the future leaves
    /// open whether it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn discard_parked(&self, seq: i64) -> Result<bool> {
        const SQL: &str = "DELETE FROM chassis_outbox WHERE seq = $1 AND state = 2";
        Ok(self.db.execute(SQL, params![seq]).await? == 1)
    }

    /// Removes all parked rows for good, and says how many they were. See
    /// [`discard_parked`](Outbox::discard_parked).
    ///
    /// Dropping the future leaves open for which rows it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn discard_all_parked(&self) -> Result<u64> {
        self.db.execute("DELETE FROM chassis_outbox WHERE state = 2", Vec::new()).await
    }

    /// Publishes again what was published within the last `age`, as far as the
    /// grace window still has it, and gives the number of rows.
    ///
    /// For a broker that lost its tail. The message ids are the same, so an inbox
    /// drops what a consumer already handled. Dropping the future leaves open how
    /// much of it happened; doing it again is harmless.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn replay(&self, age: Duration) -> Result<u64> {
        let time = DbTime::new(self.db.clone(), self.clock.clone());
        let since = time.read().await?.saturating_sub(millis(age));
        self.replay_since(since).await
    }

    /// Publishes again what was published at `since` (unix milliseconds of the
    /// database's clock) or later. See [`replay`](Outbox::replay).
    ///
    /// Dropping the future leaves open for which rows it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn replay_since(&self, since: i64) -> Result<u64> {
        let replayed = replay(self, "", since, i64::MAX).await?;
        checkpoints::replayed_by_hand(&self.db, since, replayed.last).await?;
        Ok(replayed.rows)
    }
}
