//! Messages that are appended now and published later.
//!
//! A delayed row is in a state of its own until it is due, so that whoever looks for rows
//! to publish never walks over it, however many there are. When it is due it becomes a
//! pending row like any other.
//!
//! So its place in its key is the moment at which it is due, not that of its append: it
//! holds back nothing, and what is appended in the meantime goes before it. Where that
//! matters, give it a key of its own.
//!
//! Until it is due it can be listed and cancelled ([`Outbox::delayed`],
//! [`Outbox::cancel`]). A row that a transaction is about to cancel is passed over, so that
//! a transaction which stays open holds up that one row and no other.
//!
//! Each relay does this for all partitions; two that do it at once find each row once.
//! The one of the process that appended knows when the next row is due, others look as
//! often as they look for rows.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Env, Gauge, Result, Shutdown};
use chassis_data::{Backend, Db, Dialect, Tx, params};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::clock::DbTime;
use super::handle::Outbox;
use super::parts::Parts;
use super::schema::DELAYED;

/// Rows that become pending by one statement.
const BATCH: i64 = 1000;

/// Rows are counted up to here: counting costs time.
const MAX_COUNT: i64 = 100_000;

/// The pause after the database did not answer.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Tells that a row was delayed in this process.
pub(super) type News = Arc<Notify>;

/// A row that is to be published later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delayed {
    /// The id of the message, as [`Outbox::append_at`] gave it.
    pub id: String,
    /// The topic of the message.
    pub topic: String,
    /// The type of the message.
    #[serde(rename = "type")]
    pub kind: String,
    /// The key of the message.
    pub key: Option<String>,
    /// When it is due, in unix milliseconds.
    pub due_at: i64,
}

impl<B: Backend> Outbox<B> {
    /// Rows that are to be published later, the next one first.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn delayed(&self, limit: u32) -> Result<Vec<Delayed>> {
        const SQL: &str = "SELECT id, topic, kind, msg_key, next_at
            FROM chassis_outbox WHERE state = 3 ORDER BY next_at, seq LIMIT $1";
        let rows = self.db.fetch_all(SQL, params![i64::from(limit)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Delayed {
                    id: row.text(0)?.to_owned(),
                    topic: row.text(1)?.to_owned(),
                    kind: row.text(2)?.to_owned(),
                    key: row.opt_text(3)?.map(str::to_owned),
                    due_at: row.int(4)?,
                })
            })
            .collect()
    }

    /// Removes a delayed message in the caller's transaction: committed, it is never
    /// published. `id` is what [`append_at`](Outbox::append_at) gave.
    ///
    /// `false` where there is no such message any more: it fell due, or was cancelled. Once
    /// it is due it may be on its way, and is not called back.
    ///
    /// Dropping the future leaves the transaction as a failed statement does: roll it
    /// back.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn cancel(&self, tx: &mut Tx<B>, id: &str) -> Result<bool> {
        const SQL: &str = "DELETE FROM chassis_outbox WHERE id = $1 AND state = 3";
        Ok(tx.execute(SQL, params![id]).await? > 0)
    }
}

pub(super) struct Delays<B: Backend> {
    outbox: Outbox<B>,
    time: DbTime<B>,
    count: Gauge,
}

impl<B: Backend> Delays<B> {
    pub(super) fn new(outbox: Outbox<B>, env: &Env) -> Delays<B> {
        let time = DbTime::new(outbox.db.clone(), outbox.clock.clone());
        let count =
            env.metrics().gauge("outbox_delayed", "Rows that are to be published later.", &[]);
        Delays { outbox, time, count }
    }

    /// Runs until shutdown.
    pub(super) async fn run(self, shutdown: Shutdown) {
        loop {
            // Enabled before looking, so that news in between are not lost.
            let mut news = std::pin::pin!(self.outbox.delayed.notified());
            news.as_mut().enable();
            let pause = match self.step().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "delayed rows were not looked at");
                    DATABASE_PAUSE
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = &mut news => {}
                () = shutdown.requested() => return,
            }
        }
    }

    /// Makes due rows pending, and says when to look again.
    async fn step(&self) -> Result<Duration> {
        let now = self.time.read().await?;
        let Due { parts, rows } = promote(&self.outbox.db, now).await?;
        if !parts.is_empty() {
            self.outbox.wake.wake(parts);
        }
        if rows >= BATCH {
            return Ok(Duration::ZERO);
        }
        let (next, count) = look(&self.outbox.db).await?;
        self.count.set(count);
        // One that is due and was passed over is looked for at the next poll.
        let until_next = next.and_then(|next| u64::try_from(next.saturating_sub(now)).ok());
        let until_next = until_next.filter(|ms| *ms > 0).map(Duration::from_millis);
        // Others may delay rows too, of which nobody tells us.
        Ok(until_next.unwrap_or(self.outbox.config.poll).min(self.outbox.config.poll))
    }
}

struct Due {
    parts: Parts,
    rows: i64,
}

async fn promote<B: Backend>(db: &Db<B>, now: i64) -> Result<Due> {
    const SQLITE: &str = "UPDATE chassis_outbox SET state = 0, next_at = 0
        WHERE state = 3 AND seq IN (SELECT seq FROM chassis_outbox
            WHERE state = 3 AND next_at <= $1 ORDER BY next_at LIMIT $2)
        RETURNING part";
    const POSTGRES: &str = "UPDATE chassis_outbox SET state = 0, next_at = 0
        WHERE state = 3 AND seq IN (SELECT seq FROM chassis_outbox
            WHERE state = 3 AND next_at <= $1 ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING part";
    let sql = match db.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let rows = db.fetch_all(sql, params![now, BATCH]).await?;
    let parts = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>>>()?;
    Ok(Due { rows: i64::try_from(parts.len()).unwrap_or(i64::MAX), parts: Parts::from_iter(parts) })
}

/// When the next row is due, and how many wait.
async fn look<B: Backend>(db: &Db<B>) -> Result<(Option<i64>, i64)> {
    const SQL: &str = "SELECT
        (SELECT MIN(next_at) FROM chassis_outbox WHERE state = 3),
        (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 3 LIMIT $1) d)";
    let row = db.fetch_optional(SQL, params![MAX_COUNT]).await?;
    Ok(match row {
        Some(row) => (row.opt_int(0)?, row.int(1)?),
        None => (None, 0),
    })
}

const _: () = assert!(DELAYED == 3, "the statements above name the state");
