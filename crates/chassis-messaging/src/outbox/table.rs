//! What the relay asks of the tables: one statement a method.
//!
//! Lists go in as JSON text, so that the statements stay constant; how it is
//! taken apart differs between the two databases. Each change of a row names the
//! fencing token of its partition: `$n[part]` is the token under which the relay
//! holds it, and a row of a partition that has another token by now is left
//! alone.

use bytes::Bytes;
use chassis_core::{Error, Result};
use chassis_data::{Backend, Db, Dialect, Row, params};

use super::lanes::{Entry, Flush, Verdict};
use super::lease::{Lease, Plan};
use super::schema::{PARKED, PARTITIONS, PENDING, PUBLISHED};
use crate::message::Message;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 500;

/// Rows that wait are counted up to here: counting costs time.
const MAX_COUNT: i64 = 100_000;

/// Fencing token of each partition that the relay holds; `None` where it holds none.
pub(crate) type Tokens = [Option<i64>; PARTITIONS as usize];

/// Depth of the outbox and the time of its oldest row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) rows: i64,
    pub(crate) oldest: Option<i64>,
    pub(crate) parked: i64,
}

pub(crate) struct Table<B: Backend> {
    db: Db<B>,
}

macro_rules! by_dialect {
    ($db:expr, sqlite: $sqlite:expr, postgres: $postgres:expr) => {
        match $db.dialect() {
            Dialect::Sqlite => $sqlite,
            Dialect::Postgres => $postgres,
        }
    };
}

impl<B: Backend> Table<B> {
    pub(crate) fn new(db: Db<B>) -> Self {
        Self { db }
    }

    /// The rows that may be published, oldest first. Keys with a row that waits
    /// for its next try are left out whole.
    pub(crate) async fn pending(
        &self,
        tokens: &Tokens,
        now: i64,
        limit: usize,
    ) -> Result<Vec<Entry<Message>>> {
        let sql = by_dialect!(self.db,
            sqlite: "SELECT seq, part, attempts, time, id, source, kind, topic, msg_key,
                    content_type, headers, payload
                FROM chassis_outbox
                WHERE state = 0 AND next_at <= $1
                  AND part IN (SELECT value FROM json_each($2))
                  AND (msg_key IS NULL OR msg_key NOT IN (
                    SELECT w.msg_key FROM chassis_outbox w
                    WHERE w.state = 0 AND w.next_at > 0 AND w.next_at > $1
                      AND w.msg_key IS NOT NULL))
                ORDER BY seq LIMIT $3",
            postgres: "SELECT seq, part, attempts, time, id, source, kind, topic, msg_key,
                    content_type, headers, payload
                FROM chassis_outbox
                WHERE state = 0 AND next_at <= $1
                  AND part IN (SELECT CAST(value AS BIGINT)
                    FROM json_array_elements_text(CAST($2 AS json)))
                  AND (msg_key IS NULL OR msg_key NOT IN (
                    SELECT w.msg_key FROM chassis_outbox w
                    WHERE w.state = 0 AND w.next_at > 0 AND w.next_at > $1
                      AND w.msg_key IS NOT NULL))
                ORDER BY seq LIMIT $3");
        let held: Vec<usize> =
            tokens.iter().enumerate().filter_map(|(part, token)| token.map(|_| part)).collect();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.db.fetch_all(sql, params![now, json(&held)?, limit]).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            match entry(row) {
                Ok(entry) => entries.push(entry),
                // It can never be sent, and must not stop the others.
                Err(error) => self.park_damaged(row.int(0)?, &error).await?,
            }
        }
        Ok(entries)
    }

    async fn park_damaged(&self, seq: i64, error: &Error) -> Result<()> {
        const SQL: &str =
            "UPDATE chassis_outbox SET state = 2, last_error = $1 WHERE seq = $2 AND state = 0";
        tracing::error!(seq, error = %error.chain(), "outbox row is damaged and parked");
        self.db.execute(SQL, params![error.chain(), seq]).await?;
        Ok(())
    }

    /// Writes what became of rows, in one transaction. `false`: some of them were
    /// no longer ours to write.
    pub(crate) async fn write(&self, flush: &Flush, tokens: &Tokens, now: i64) -> Result<bool> {
        let mark = by_dialect!(self.db,
            sqlite: "UPDATE chassis_outbox SET state = 1, published_at = $1, last_error = NULL
                WHERE state = 0 AND seq IN (SELECT value FROM json_each($2))
                  AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
                    WHERE l.part = chassis_outbox.part
                      AND l.token = json_extract($3, '$[' || l.part || ']'))",
            postgres: "UPDATE chassis_outbox SET state = 1, published_at = $1, last_error = NULL
                WHERE state = 0
                  AND seq IN (SELECT CAST(value AS BIGINT)
                    FROM json_array_elements_text(CAST($2 AS json)))
                  AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
                    WHERE l.part = chassis_outbox.part
                      AND l.token = CAST(CAST($3 AS json) ->> CAST(l.part AS INTEGER) AS BIGINT))");
        let fail = by_dialect!(self.db,
            sqlite: "UPDATE chassis_outbox
                SET state = $1, attempts = $2, next_at = $3, last_error = $4
                WHERE state = 0 AND seq = $5
                  AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
                    WHERE l.part = chassis_outbox.part
                      AND l.token = json_extract($6, '$[' || l.part || ']'))",
            postgres: "UPDATE chassis_outbox
                SET state = $1, attempts = $2, next_at = $3, last_error = $4
                WHERE state = 0 AND seq = $5
                  AND EXISTS (SELECT 1 FROM chassis_outbox_lease l
                    WHERE l.part = chassis_outbox.part
                      AND l.token = CAST(CAST($6 AS json) ->> CAST(l.part AS INTEGER) AS BIGINT))");
        let tokens = json(tokens)?;
        let mut tx = self.db.begin().await?;
        let mut expected = flush.published.len() as u64;
        let mut changed = 0;
        if !flush.published.is_empty() {
            let values = params![now, json(&flush.published)?, tokens.clone()];
            changed += tx.execute(mark, values).await?;
        }
        for failed in &flush.failed {
            let (state, attempts, at) = match failed.verdict {
                Verdict::Retry { attempts, at } => (PENDING, attempts, at),
                Verdict::Park { attempts } => (PARKED, attempts, 0),
                Verdict::Hold => continue,
            };
            let reason: String = failed.reason.chars().take(MAX_REASON).collect();
            let values =
                params![state, i64::from(attempts), at, reason, failed.seq, tokens.clone()];
            expected += 1;
            changed += tx.execute(fail, values).await?;
        }
        tx.commit().await?;
        Ok(changed == expected)
    }

    /// Shows that relay `me` is alive, and reads all leases and the number of
    /// relays that are alive.
    pub(crate) async fn beat(&self, me: &str, now: i64, until: i64) -> Result<(Vec<Lease>, usize)> {
        let mut tx = self.db.begin().await?;
        let values = params![me, until];
        tx.execute(
            "INSERT INTO chassis_outbox_relay (owner, expires_at) VALUES ($1, $2)
             ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at",
            values,
        )
        .await?;
        tx.execute("DELETE FROM chassis_outbox_relay WHERE expires_at < $1", params![now]).await?;
        let live = tx.fetch_all("SELECT owner FROM chassis_outbox_relay", Vec::new()).await?.len();
        let mut rows = tx.fetch_all(LEASES, Vec::new()).await?;
        if rows.len() < PARTITIONS as usize {
            for part in 0..PARTITIONS {
                tx.execute(
                    "INSERT INTO chassis_outbox_lease (part, owner, token, expires_at)
                     VALUES ($1, '', 0, 0) ON CONFLICT (part) DO NOTHING",
                    params![part],
                )
                .await?;
            }
            rows = tx.fetch_all(LEASES, Vec::new()).await?;
        }
        tx.commit().await?;
        let leases = rows
            .iter()
            .map(|row| {
                Ok(Lease {
                    part: row.int(0)?,
                    owner: row.text(1)?.to_owned(),
                    token: row.int(2)?,
                    expires_at: row.int(3)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((leases, live))
    }

    /// Carries a plan out and gives the tokens of what is held afterwards. Each
    /// statement checks again that the lease is still as it was seen.
    pub(crate) async fn lease(
        &self,
        me: &str,
        plan: &Plan,
        leases: &[Lease],
        now: i64,
        until: i64,
    ) -> Result<Tokens> {
        let mut tokens: Tokens = [None; PARTITIONS as usize];
        let mut tx = self.db.begin().await?;
        for lease in leases {
            let changed = if plan.renew.contains(&lease.part) {
                tx.execute(
                    "UPDATE chassis_outbox_lease SET expires_at = $1
                     WHERE part = $2 AND owner = $3 AND token = $4",
                    params![until, lease.part, me, lease.token],
                )
                .await?
            } else if plan.take.contains(&lease.part) {
                tx.execute(
                    "UPDATE chassis_outbox_lease
                     SET owner = $1, token = token + 1, expires_at = $2
                     WHERE part = $3 AND token = $4 AND expires_at <= $5",
                    params![me, until, lease.part, lease.token, now],
                )
                .await?
            } else if plan.give.contains(&lease.part) {
                tx.execute(
                    "UPDATE chassis_outbox_lease SET owner = '', token = token + 1, expires_at = 0
                     WHERE part = $1 AND owner = $2 AND token = $3",
                    params![lease.part, me, lease.token],
                )
                .await?;
                0
            } else {
                0
            };
            if changed == 1 {
                let taken = plan.take.contains(&lease.part);
                let slot = usize::try_from(lease.part).ok().and_then(|p| tokens.get_mut(p));
                if let Some(slot) = slot {
                    *slot = Some(lease.token + i64::from(taken));
                }
            }
        }
        tx.commit().await?;
        Ok(tokens)
    }

    /// Gives everything back, so that the next relay need not wait.
    pub(crate) async fn leave(&self, me: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(
            "UPDATE chassis_outbox_lease SET owner = '', token = token + 1, expires_at = 0
             WHERE owner = $1",
            params![me],
        )
        .await?;
        tx.execute("DELETE FROM chassis_outbox_relay WHERE owner = $1", params![me]).await?;
        tx.commit().await
    }

    /// Removes published rows that are older than `before`: at most `limit` of them.
    pub(crate) async fn clean(&self, before: i64, limit: usize) -> Result<u64> {
        const SQL: &str = "DELETE FROM chassis_outbox WHERE seq IN (
            SELECT seq FROM chassis_outbox WHERE state = 1 AND published_at < $1
            ORDER BY published_at LIMIT $2)";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db.execute(SQL, params![before, limit]).await
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog> {
        const SQL: &str = "SELECT
            (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 0 LIMIT $1) d),
            (SELECT time FROM chassis_outbox WHERE state = 0 ORDER BY seq LIMIT 1),
            (SELECT COUNT(*) FROM (SELECT 1 FROM chassis_outbox WHERE state = 2 LIMIT $1) p)";
        match self.db.fetch_optional(SQL, params![MAX_COUNT]).await? {
            Some(row) => {
                Ok(Backlog { rows: row.int(0)?, oldest: row.opt_int(1)?, parked: row.int(2)? })
            }
            None => Ok(Backlog::default()),
        }
    }
}

const LEASES: &str =
    "SELECT part, owner, token, expires_at FROM chassis_outbox_lease ORDER BY part";

const _: () = assert!(PUBLISHED == 1 && PARKED == 2, "the statements above name the states");

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

fn entry(row: &Row) -> Result<Entry<Message>> {
    let key = row.opt_text(8)?.map(str::to_owned);
    Ok(Entry {
        seq: row.int(0)?,
        part: row.int(1)?,
        attempts: u32::try_from(row.int(2)?).unwrap_or(u32::MAX),
        key: key.as_deref().map(Into::into),
        item: Message {
            time: row.int(3)?,
            id: row.text(4)?.to_owned(),
            source: row.text(5)?.to_owned(),
            kind: row.text(6)?.to_owned(),
            topic: row.text(7)?.to_owned(),
            key,
            content_type: row.text(9)?.to_owned(),
            // A row whose headers are damaged is published without them: its
            // trace is lost, its content is not.
            headers: serde_json::from_str(row.text(10)?).unwrap_or_default(),
            payload: Bytes::copy_from_slice(row.blob(11)?),
        },
    })
}
