//! What the relay asks of the tables: one statement a method.
//!
//! Lists go in as text (JSON, or an array of PostgreSQL), so that the statements
//! stay constant. Each change of a row names the
//! fencing token of its partition: `$n[part]` is the token under which the relay
//! holds it, and a row of a partition that has another token by now is left
//! alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use chassis_core::{Code, Error, Result};
use chassis_data::{Backend, Db, Dialect, Row, params};

use super::checkpoints::{self, Checkpoint};
use super::lanes::{Entry, Flush, Verdict};
use super::lease::{Lease, Plan};
use super::own::{self, Own};
use super::parts::{PARTITIONS, Parts};
use super::schema::{PARKED, PENDING, PUBLISHED};
use super::statements::{
    BACKLOG_POSTGRES, BACKLOG_SQLITE, FAIL_POSTGRES, FAIL_SQLITE, LEASES, MARK_POSTGRES,
    MARK_SQLITE, NOTE_SQLITE, READ_POSTGRES, READ_SQLITE, TAKE_POSTGRES, TAKE_SQLITE,
};
use super::turns;
use crate::message::Message;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 500;

/// Rows that wait are counted up to here: counting costs time.
const MAX_COUNT: i64 = 100_000;

/// Fencing token of each partition that the relay holds; `None` where it holds none.
pub(crate) type Tokens = [Option<i64>; PARTITIONS];

/// A row that is larger than its share of the room, and than this, is fetched alone.
const SMALL_ROW: usize = 1024;

/// What a read should bring.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) parts: Parts,
    /// Rows that need not come, because they are held.
    pub(crate) held: Vec<i64>,
    /// Keys that need not come, because enough of them is held.
    pub(crate) full: Vec<Arc<str>>,
    /// Rows of each partition.
    pub(crate) per_part: usize,
    /// Bytes of all rows together; one row may be larger.
    pub(crate) bytes: usize,
}

/// What a read brought: within a partition in the order of `seq`.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) rows: Vec<Entry<Box<Message>>>,
    /// Partitions that may have more.
    pub(crate) more: Parts,
}

/// What a step of the clean-up did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Where the next step begins; `None` where all that is left is too young.
    pub(crate) next: Option<i64>,
}

/// Depth of the outbox and the time of its oldest row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) rows: i64,
    pub(crate) oldest: Option<i64>,
    pub(crate) parked: i64,
}

pub(crate) struct Table<B: Backend> {
    db: Db<B>,
    reads: Own<B>,
    /// Reads that take long, so that they do not keep the others waiting.
    long_reads: Own<B>,
    writes: Own<B>,
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
    /// The tables as a relay uses them, on connections of its own.
    pub(crate) fn new(db: Db<B>) -> Self {
        Self {
            reads: Own::new(db.clone(), Some(own::READS)),
            long_reads: Own::new(db.clone(), Some(own::READS)),
            writes: Own::new(db.clone(), Some(own::WRITES)),
            db,
        }
    }

    /// The tables for a single look.
    pub(crate) fn shared(db: Db<B>) -> Self {
        let own = || Own::new(db.clone(), None);
        Self { reads: own(), long_reads: own(), writes: own(), db }
    }

    /// The rows that may be published. Keys with a row that waits for its next
    /// try are left out whole.
    pub(crate) async fn read(&self, want: &Want, now: i64) -> Result<Found> {
        let per_part = i64::try_from(want.per_part).unwrap_or(i64::MAX);
        let limit = want.per_part.saturating_mul(want.parts.len()).max(1);
        let small = (want.bytes / limit).max(SMALL_ROW);
        let small = i64::try_from(small).unwrap_or(i64::MAX);
        let full: Vec<&str> = want.full.iter().map(|key| &**key).collect();
        let full = json(&full)?;
        let rows = match self.db.dialect() {
            Dialect::Postgres => {
                let parts = array(want.parts.iter());
                let held = array(want.held.iter());
                let values = params![now, parts, held, full, small, per_part];
                if want.full.is_empty() {
                    self.reads.fetch_all(READ_POSTGRES, values).await?
                } else {
                    self.long_reads.fetch_all(READ_POSTGRES, values).await?
                }
            }
            Dialect::Sqlite => {
                let parts: Vec<i64> = want.parts.iter().collect();
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let (parts, held) = (json(&parts)?, json(&want.held)?);
                let values = params![now, parts, held, full, small, limit];
                self.reads.fetch_all(READ_SQLITE, values).await?
            }
        };
        let mut found = Found { rows: Vec::with_capacity(rows.len()), more: Parts::NONE };
        if self.db.dialect() == Dialect::Sqlite && rows.len() >= limit {
            found.more = want.parts;
        }
        let mut count = [0_usize; PARTITIONS];
        let mut left = want.bytes;
        let mut ended = Parts::NONE;
        for mut row in rows {
            let (seq, part) = (row.int(0)?, row.int(1)?);
            if let Some(count) = usize::try_from(part).ok().and_then(|part| count.get_mut(part)) {
                *count += 1;
                if *count >= want.per_part {
                    found.more.insert(part);
                }
            }
            if ended.contains(part) {
                continue;
            }
            let bytes = usize::try_from(row.int(10)?).unwrap_or(usize::MAX);
            if bytes > left && !found.rows.is_empty() {
                // What comes after it must not overtake it.
                ended.insert(part);
                found.more.insert(part);
                continue;
            }
            match self.entry(&mut row, bytes, small).await {
                Ok(Some(entry)) => {
                    left = left.saturating_sub(bytes);
                    found.rows.push(entry);
                }
                // It was parked or removed since.
                Ok(None) => {}
                Err(error) if error.code().is_retryable() => return Err(error),
                // It can never be sent, and must not stop the others.
                Err(error) => self.park_damaged(seq, &error).await?,
            }
        }
        Ok(found)
    }

    /// The row as an entry; a large one is fetched now.
    async fn entry(
        &self,
        row: &mut Row,
        bytes: usize,
        small: i64,
    ) -> Result<Option<Entry<Box<Message>>>> {
        if row.int(10)? <= small {
            let (headers, payload) = (row.take_text(11)?, row.take_blob(12)?);
            return entry(row, &headers, payload, bytes).map(Some);
        }
        const SQL: &str = "SELECT headers, payload FROM chassis_outbox WHERE seq = $1";
        match self.db.fetch_optional(SQL, params![row.int(0)?]).await? {
            Some(mut large) => {
                let payload = large.take_blob(1)?;
                entry(row, large.text(0)?, payload, bytes).map(Some)
            }
            None => Ok(None),
        }
    }

    async fn park_damaged(&self, seq: i64, error: &Error) -> Result<()> {
        const SQL: &str =
            "UPDATE chassis_outbox SET state = 2, last_error = $1 WHERE seq = $2 AND state = 0";
        tracing::error!(seq, error = %error.chain(), "outbox row is damaged and parked");
        let reason = format!("{}: {}", error.reason(), error.chain());
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let mut tx = self.db.begin().await?;
        if tx.execute(SQL, params![reason, seq]).await? == 1 {
            turns::given_up(&mut tx, seq).await?;
        }
        tx.commit().await
    }

    /// Writes what became of rows, and with it the ends of the streams as they were when
    /// the last of them was acknowledged. `false`: some of them were no longer ours to
    /// write.
    ///
    /// On PostgreSQL the commit of marks does not wait for the disk.
    pub(crate) async fn write(
        &self,
        flush: &Flush,
        tokens: &Tokens,
        now: i64,
        ends: &[Checkpoint],
    ) -> Result<bool> {
        let mark = by_dialect!(self.db, sqlite: MARK_SQLITE, postgres: MARK_POSTGRES);
        let (seqs, held) = match self.db.dialect() {
            Dialect::Sqlite => (json(&flush.published)?, json(tokens)?),
            // A token is never negative, so -1 matches none, and locks none.
            Dialect::Postgres => {
                let marked = flush.marked();
                let token = |(part, token): (i64, &Option<i64>)| {
                    token.filter(|_| marked.contains(part)).unwrap_or(-1)
                };
                (array(flush.published.iter()), array((0..).zip(tokens).map(token)))
            }
        };
        let ends: Vec<_> = ends
            .iter()
            .map(|end| (&end.stream, end.at, end.witness.position, &end.witness.id))
            .collect();
        let ends_text = json(&ends)?;
        let mut expected = flush.published.len() as u64;
        // SQLite takes one change a statement.
        let (marks, note) = match self.db.dialect() {
            Dialect::Postgres => (params![now, seqs, held, ends_text], None),
            Dialect::Sqlite => {
                (params![now, seqs, held], (!ends.is_empty()).then(|| params![ends_text]))
            }
        };
        if flush.failed.is_empty() && note.is_none() {
            return Ok(self.writes.execute(mark, marks).await? == expected);
        }
        let fail = by_dialect!(self.db, sqlite: FAIL_SQLITE, postgres: FAIL_POSTGRES);
        let tokens = json(tokens)?;
        let mut tx = self.db.begin().await?;
        let mut changed = 0;
        if !flush.published.is_empty() {
            changed += tx.execute(mark, marks).await?;
        }
        if let Some(note) = note {
            tx.execute(NOTE_SQLITE, note).await?;
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
            let written = tx.execute(fail, values).await?;
            changed += written;
            if state == PARKED && written == 1 {
                turns::given_up(&mut tx, failed.seq).await?;
            }
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
        if rows.len() < PARTITIONS {
            for part in Parts::ALL.iter() {
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
        let leases = rows.iter().map(lease).collect::<Result<Vec<_>>>()?;
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
        let take = by_dialect!(self.db, sqlite: TAKE_SQLITE, postgres: TAKE_POSTGRES);
        let mut tokens: Tokens = [None; PARTITIONS];
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
                tx.execute(take, params![me, until, lease.part, lease.token, now]).await?
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

    /// All leases as they are.
    pub(crate) async fn leases(&self) -> Result<Vec<Lease>> {
        self.db.fetch_all(LEASES, Vec::new()).await?.iter().map(lease).collect()
    }

    /// Looks at `limit` rows after `from`, and removes those that were published
    /// before `before`.
    ///
    /// It goes by `seq`, which needs no index of its own. Rows are published nearly
    /// in that order, so where half of what it sees is too young, so is the rest.
    pub(crate) async fn clean(&self, from: i64, before: i64, limit: usize) -> Result<Cleaned> {
        const LOOK: &str = "SELECT COUNT(*), MAX(seq), CAST(COALESCE(SUM(
                CASE WHEN state <> 1 OR published_at >= $1 THEN 1 ELSE 0 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(
                CASE WHEN state = 1 AND published_at >= $1 THEN 1 ELSE 0 END), 0) AS BIGINT)
            FROM (SELECT seq, state, published_at FROM chassis_outbox
                WHERE seq > $2 ORDER BY seq LIMIT $3) r";
        const REMOVE: &str = "DELETE FROM chassis_outbox
            WHERE seq > $1 AND seq <= $2 AND state = 1 AND published_at < $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.writes.fetch_all(LOOK, params![before, from, limit]).await?;
        let Some(row) = rows.first() else { return Ok(Cleaned { next: None }) };
        let (seen, kept, young) = (row.int(0)?, row.int(2)?, row.int(3)?);
        let Some(last) = row.opt_int(1)? else { return Ok(Cleaned { next: None }) };
        if kept < seen {
            self.writes.execute(REMOVE, params![from, last, before]).await?;
        }
        let goes_on = seen >= limit && young * 2 < seen;
        Ok(Cleaned { next: goes_on.then_some(last) })
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog> {
        let sql = by_dialect!(self.db, sqlite: BACKLOG_SQLITE, postgres: BACKLOG_POSTGRES);
        match self.long_reads.fetch_all(sql, params![MAX_COUNT]).await?.first() {
            Some(row) => {
                Ok(Backlog { rows: row.int(0)?, oldest: row.opt_int(1)?, parked: row.int(2)? })
            }
            None => Ok(Backlog::default()),
        }
    }
}

const _: () = assert!(PUBLISHED == 1 && PARKED == 2, "the statements above name the states");
const _: () = assert!(checkpoints::WITH_MARKS == 120, "the statements name the place");

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

/// A list of numbers as PostgreSQL writes an array.
fn array(numbers: impl Iterator<Item = impl std::fmt::Display>) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("{");
    for number in numbers {
        let comma = if text.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{number}");
    }
    text.push('}');
    text
}

fn lease(row: &Row) -> Result<Lease> {
    Ok(Lease {
        part: row.int(0)?,
        owner: row.text(1)?.to_owned(),
        token: row.int(2)?,
        expires_at: row.int(3)?,
    })
}

/// Headers hold the tenant, the trace, and what the service put there: a message without
/// them would be another message.
fn read_headers(text: &str) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(text).map_err(|source| {
        Error::new(Code::DataLoss, "OUTBOX_ROW_DAMAGED", "the headers of the row are damaged")
            .with_source(source)
    })
}

fn entry(
    row: &mut Row,
    headers: &str,
    payload: Vec<u8>,
    bytes: usize,
) -> Result<Entry<Box<Message>>> {
    let key = row.take_opt_text(8)?;
    Ok(Entry {
        seq: row.int(0)?,
        part: row.int(1)?,
        attempts: u32::try_from(row.int(2)?).unwrap_or(u32::MAX),
        key: key.as_deref().map(Into::into),
        bytes,
        item: Box::new(Message {
            time: row.int(3)?,
            id: row.take_text(4)?,
            source: row.take_text(5)?,
            kind: row.take_text(6)?,
            topic: row.take_text(7)?,
            key,
            content_type: row.take_text(9)?,
            headers: read_headers(headers)?,
            payload: payload.into(),
        }),
    })
}
