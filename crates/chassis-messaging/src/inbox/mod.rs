//! Each message takes effect once.
//!
//! A broker delivers at least once: after a lost acknowledgement, a crash or a
//! long pause, a message comes again. So a handler notes (consumer, message id)
//! in the transaction that does its work. The first delivery writes the note; a
//! later one finds it and does nothing. Work and note commit together or not at
//! all, so a handler that fails or is aborted leaves no note.
//!
//! What this does not do: a call that the handler makes outside its transaction
//! is not covered. Give it an idempotency key, or send it through the outbox.
//!
//! It also knows whether it is a message's turn: where the message says which one of its
//! key comes before it, that one must have its note first (`turns`).
//!
//! Notes are kept for `retention`, which must be longer than a broker may
//! redeliver; see [`Inbox::check_retention`].

mod turns;

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use chassis_core::{BoxFuture, Component, Env, Error, Ready, Result, Shutdown, unix_ms};
use chassis_data::{Backend, Db, Dialect, Migrations, Tx, params};
use tokio::time::sleep;

use crate::outbox::millis;

pub(crate) use turns::Turn;

/// How long a note is kept where nothing else is said: eight days, one more than
/// brokers keep messages by default.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Ids noted by one statement.
const NOTE_BATCH: usize = 1000;
/// Notes removed by one statement.
const CLEAN_BATCH: u64 = 1000;
/// How often the cleaner looks.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

// Gives those that were there: mostly none, where the others would be a row each.
const NOTE_POSTGRES: &str = "WITH ids AS (
        SELECT id FROM json_array_elements_text(CAST($3 AS json)) AS ids(id)
    ), noted AS (
        INSERT INTO chassis_inbox (consumer, message_id, received_at)
        SELECT $1, id, $2 FROM ids ON CONFLICT DO NOTHING RETURNING message_id
    )
    SELECT id FROM ids EXCEPT SELECT message_id FROM noted";
// Without the WHERE, SQLite would read the ON as part of a join.
const NOTE_SQLITE: &str = "INSERT INTO chassis_inbox (consumer, message_id, received_at)
    SELECT $1, value, $2 FROM json_each($3) WHERE true
    ON CONFLICT DO NOTHING RETURNING message_id";

/// The inbox of one database. Cheap to clone.
pub struct Inbox<B: Backend = sqlx::Any> {
    db: Db<B>,
    retention: Duration,
}

impl<B: Backend> Clone for Inbox<B> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), retention: self.retention }
    }
}

impl<B: Backend> Inbox<B> {
    /// The inbox in `db`, with [`DEFAULT_RETENTION`].
    #[must_use]
    pub fn new(db: &Db<B>) -> Self {
        Self { db: db.clone(), retention: DEFAULT_RETENTION }
    }

    /// The same inbox that keeps its notes for another time.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The table that the inbox needs, for [`Db::migrate`].
    #[must_use]
    pub fn migrations(&self) -> Migrations {
        Migrations::new("inbox")
            .step(
                1,
                "inbox",
                "CREATE TABLE chassis_inbox (
                    consumer TEXT NOT NULL,
                    message_id TEXT NOT NULL,
                    received_at BIGINT NOT NULL,
                    PRIMARY KEY (consumer, message_id)
                )",
            )
            .step(
                2,
                "index by age",
                "CREATE INDEX chassis_inbox_age ON chassis_inbox (received_at)",
            )
            .step(3, "early ones", turns::EARLY)
            .step(4, "early ones by age", turns::EARLY_AGE)
    }

    /// Notes the message in the handler's transaction. `false`: `consumer` has
    /// handled it before, so there is nothing to do.
    ///
    /// On PostgreSQL a second delivery that is handled at the same time waits
    /// here until the first commits or rolls back. Dropping the future leaves the
    /// transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn first_time(
        &self,
        tx: &mut Tx<B>,
        consumer: &str,
        message_id: &str,
    ) -> Result<bool> {
        const SQL: &str = "INSERT INTO chassis_inbox (consumer, message_id, received_at)
            VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        Ok(tx.execute(SQL, params![consumer, message_id, unix_ms()]).await? == 1)
    }

    /// Removes the note of a message.
    pub(crate) async fn forget(&self, tx: &mut Tx<B>, consumer: &str, id: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM chassis_inbox WHERE consumer = $1 AND message_id = $2";
        tx.execute(SQL, params![consumer, id]).await.map(drop)
    }

    /// Notes several messages in the handler's transaction, by one statement for up
    /// to a thousand. The answer has the order of `message_ids`, `true` for each that
    /// `consumer` has not handled before; of an id that comes twice the first is.
    ///
    /// On PostgreSQL it waits for deliveries that are handled at the same time, as
    /// [`first_time`](Inbox::first_time) does. The ids are noted in their own order,
    /// so that two batches do not wait for each other. Dropping the future leaves the
    /// transaction as a failed statement does: roll it back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn first_times(
        &self,
        tx: &mut Tx<B>,
        consumer: &str,
        message_ids: &[&str],
    ) -> Result<Vec<bool>> {
        let mut sorted = message_ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut repeated = HashSet::new();
        for ids in sorted.chunks(NOTE_BATCH) {
            let list = serde_json::to_string(ids).map_err(Error::internal)?;
            let values = params![consumer, unix_ms(), list];
            match tx.dialect() {
                Dialect::Postgres => {
                    for row in tx.fetch_all(NOTE_POSTGRES, values).await? {
                        repeated.insert(row.text(0)?.to_owned());
                    }
                }
                Dialect::Sqlite => {
                    let rows = tx.fetch_all(NOTE_SQLITE, values).await?;
                    let noted = rows.iter().map(|row| row.text(0));
                    let noted = noted.collect::<Result<HashSet<&str>>>()?;
                    repeated.extend(
                        ids.iter().filter(|id| !noted.contains(**id)).map(|&id| id.to_owned()),
                    );
                }
            }
        }
        if sorted.len() == message_ids.len() {
            return Ok(message_ids.iter().map(|id| !repeated.contains(*id)).collect());
        }
        let mut seen = HashSet::with_capacity(sorted.len());
        Ok(message_ids.iter().map(|id| seen.insert(*id) && !repeated.contains(*id)).collect())
    }

    /// Refuses a retention that is not longer than the time for which a broker
    /// may deliver a message again: a duplicate would find no note.
    ///
    /// To be called before the first delivery is taken. A broker can deliver a
    /// message again for as long as it keeps it.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` with the reason `INBOX_RETENTION_TOO_SHORT`.
    pub fn check_retention(&self, redelivery: Duration) -> Result<()> {
        if self.retention > redelivery {
            return Ok(());
        }
        let message = format!(
            "the inbox keeps its notes for {:?}, but the broker may redeliver for {redelivery:?}",
            self.retention
        );
        Err(Error::failed_precondition("INBOX_RETENTION_TOO_SHORT", message))
    }

    /// Removes notes past their retention, at most a thousand, and says how many.
    ///
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn clean(&self) -> Result<u64> {
        const SQL: &str = "DELETE FROM chassis_inbox WHERE (consumer, message_id) IN (
            SELECT consumer, message_id FROM chassis_inbox
            WHERE received_at < $1 ORDER BY received_at LIMIT $2)";
        let before = unix_ms().saturating_sub(millis(self.retention));
        let limit = i64::try_from(CLEAN_BATCH).unwrap_or(i64::MAX);
        self.db.execute(SQL, params![before, limit]).await
    }

    /// The component that removes old notes, a batch at a time: `inbox-cleaner`.
    #[must_use]
    pub fn cleaner(&self) -> InboxCleaner<B> {
        InboxCleaner(self.clone())
    }
}

/// Removes old notes now and then. See [`Inbox::cleaner`].
pub struct InboxCleaner<B: Backend = sqlx::Any>(Inbox<B>);

impl<B: Backend> Component for InboxCleaner<B> {
    fn name(&self) -> Cow<'static, str> {
        "inbox-cleaner".into()
    }

    fn describe(&self) -> String {
        format!("keeps {:?}", self.0.retention)
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        let removed =
            env.metrics().counter("inbox_removed", "Notes removed past their retention.", &[]);
        ready.ready();
        Box::pin(async move {
            loop {
                let cleaned = match self.0.clean().await {
                    Ok(count) => self.0.clean_early().await.map(|()| count),
                    failed => failed,
                };
                let pause = match cleaned {
                    Ok(count) => {
                        removed.add(count);
                        // A full batch means that there is more; others want to write too.
                        let full = count >= CLEAN_BATCH;
                        if full { Duration::from_millis(50) } else { CLEAN_EVERY }
                    }
                    Err(error) => {
                        tracing::warn!(error = %error.chain(), "the inbox was not cleaned");
                        CLEAN_EVERY
                    }
                };
                tokio::select! {
                    () = sleep(pause) => {}
                    () = shutdown.requested() => return Ok(()),
                }
            }
        })
    }
}
