//! The SQLite file of the embedded broker: its tables and its statements.
//!
//! One table of messages for all topics, numbered in the order in which they
//! were stored. A group keeps a floor, up to which all is answered, and a row
//! for each message beyond it that was touched; so what is stored for a group
//! that keeps up is a handful of rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis_core::{Error, Result, Secret};
use chassis_data::{DatabaseConfig, Db, Migrations, Row, Tx, params};
use sqlx::Sqlite;

use super::group::{Changes, Progress, Seq};
use super::tail;
use crate::broker::tail::Found;
use crate::broker::{Page, Stored, Topics};
use crate::message::Message;

/// How many rows one statement of the clean-up looks at.
const SWEEP_ROWS: i64 = 500;

pub(super) struct Store {
    db: Db<Sqlite>,
}

/// A group as it is stored.
pub(super) struct StoredGroup {
    pub(super) id: i64,
    pub(super) floor: Seq,
    /// The newest message of the topic.
    pub(super) head: Seq,
    pub(super) progress: Vec<(Seq, Progress)>,
}

impl Store {
    pub(super) async fn open(folder: &Path) -> Result<Store> {
        let config = DatabaseConfig {
            url: Secret::new(format!("sqlite://{}?mode=rwc", url_path(&folder.join("broker.db")))),
            max_connections: 4,
            acquire_timeout: Duration::from_secs(30),
            ..DatabaseConfig::default()
        };
        let db = Db::<Sqlite>::connect(&config).await?;
        db.migrate(&migrations()).await?;
        Ok(Store { db })
    }

    pub(super) async fn close(&self) {
        self.db.close().await;
    }

    pub(super) async fn check(&self) -> Result<()> {
        self.db.fetch_all("select 1", params![]).await.map(drop)
    }

    pub(super) async fn begin(&self) -> Result<Tx<Sqlite>> {
        self.db.begin().await
    }

    /// How many bytes of messages are stored.
    pub(super) async fn bytes(&self) -> Result<u64> {
        let sql = "select coalesce(sum(size), 0) from messages";
        let rows = self.db.fetch_all(sql, params![]).await?;
        first_number(&rows)
    }

    /// How many messages of a topic there are after `after`, counted up to a number.
    pub(super) async fn count(&self, topic: &str, after: Seq, most: i64) -> Result<u64> {
        let sql = "select count(*) from \
             (select 1 from messages where topic = $1 and seq > $2 limit $3)";
        let rows = self.db.fetch_all(sql, params![topic.to_owned(), number(after), most]).await?;
        first_number(&rows)
    }

    /// Reads messages of a topic after `after`, up to a number and about a size.
    /// The second value says whether there may be more.
    pub(super) async fn read(
        &self,
        topic: &str,
        after: Seq,
        most: usize,
        bytes: usize,
    ) -> Result<(Vec<(Seq, Arc<Message>)>, bool)> {
        let sizes = self
            .db
            .fetch_all(
                "select seq, size from messages where topic = $1 and seq > $2 order by seq limit $3",
                params![topic.to_owned(), number(after), number(most as u64)],
            )
            .await?;
        let mut upto = after;
        let mut total = 0;
        let mut count = 0;
        for row in &sizes {
            if count > 0 && total >= bytes as u64 {
                break;
            }
            upto = seq(row, 0)?;
            total += seq(row, 1)?;
            count += 1;
        }
        let more = count < sizes.len() || count == most;
        let rows = self
            .db
            .fetch_all(
                "select seq, topic, id, key, source, kind, time, content_type, headers, payload \
                 from messages where topic = $1 and seq > $2 and seq <= $3 order by seq",
                params![topic.to_owned(), number(after), number(upto)],
            )
            .await?;
        let messages = rows.iter().map(|row| Ok((seq(row, 0)?, Arc::new(read_message(row)?))));
        Ok((messages.collect::<Result<_>>()?, more))
    }
}

impl Store {
    /// Reads messages from `from` on, up to a number and about a size.
    pub(super) async fn page(
        &self,
        topics: &Topics,
        from: Seq,
        most: usize,
        bytes: usize,
    ) -> Result<Page> {
        // A name that goes on has at least a '-', and what follows a '.' is a '/'.
        let (first, end) = match topics {
            Topics::One(topic) => (topic.clone(), format!("{topic}!")),
            Topics::Below(topic) => (format!("{topic}."), format!("{topic}/")),
        };
        let rows = self
            .db
            .fetch_all(
                "select seq, topic, id, key, source, kind, time, content_type, headers, payload \
                 from messages where seq in (select seq from \
                 (select seq, sum(size) over (order by seq) - size as before from \
                 (select seq, size from messages indexed by messages_by_topic \
                 where topic >= $1 and topic < $2 and seq >= $3 order by seq limit $4)) \
                 where before < $5) order by seq",
                params![first, end, number(from), number(most as u64), number(bytes as u64)],
            )
            .await?;
        let messages = rows
            .iter()
            .map(|row| Ok(Stored { position: seq(row, 0)?, message: read_message(row)? }))
            .collect::<Result<Vec<_>>>()?;
        let size: usize = messages.iter().map(|stored| stored.message.size()).sum();
        let more = messages.len() >= most || size >= bytes;
        let next = messages.last().filter(|_| more).map(|stored| stored.position + 1);
        Ok(Page { messages, next })
    }
}

impl Store {
    /// What stands at a position: the message's topic, edition and id.
    pub(super) async fn at(&self, position: Seq) -> Result<Found> {
        let sql = "select topic, edition, id from messages where seq = $1";
        let rows = self.db.fetch_all(sql, params![number(position)]).await?;
        if let Some(row) = rows.first() {
            let id = tail::name(row.text(0)?, row.text(1)?, row.text(2)?);
            return Ok(Found::Message { id });
        }
        // Numbers are not given twice, also where the last message was removed.
        let sql = "select seq from sqlite_sequence where name = 'messages'";
        let rows = self.db.fetch_all(sql, params![]).await?;
        Ok(Found::Nothing { last: first_number(&rows)? })
    }
}

/// Removes a message; gives its size, or `None` where it is not there.
pub(super) async fn delete(tx: &mut Tx<Sqlite>, topic: &str, at: Seq) -> Result<Option<u64>> {
    let sql = "delete from messages where seq = $1 and topic = $2 returning size";
    let row = tx.fetch_optional(sql, params![number(at), topic.to_owned()]).await?;
    row.as_ref().map(|row| seq(row, 0)).transpose()
}

/// Stores a message; `None` means that it was there already.
pub(super) async fn insert(
    tx: &mut Tx<Sqlite>,
    message: &Message,
    now: i64,
    remembered_since: i64,
) -> Result<Option<Seq>> {
    let headers = serde_json::to_string(&message.headers).map_err(Error::internal)?;
    let row = tx
        .fetch_optional(
            "insert into messages (topic, id, stored_at, size, key, source, kind, time, \
             content_type, headers, payload, edition) \
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13 where not exists \
             (select 1 from messages where topic = $1 and id = $2 and edition = $13 \
             and stored_at >= $12) \
             returning seq",
            params![
                message.topic.clone(),
                message.id.clone(),
                now,
                number(message.size() as u64),
                message.key.clone(),
                message.source.clone(),
                message.kind.clone(),
                message.time,
                message.content_type.clone(),
                headers,
                message.payload.to_vec(),
                remembered_since,
                message.edition().unwrap_or_default()
            ],
        )
        .await?;
    row.as_ref().map(|row| seq(row, 0)).transpose()
}

/// Reads a group, making it where it does not exist.
pub(super) async fn open_group(
    tx: &mut Tx<Sqlite>,
    name: &str,
    topic: &str,
) -> Result<StoredGroup> {
    tx.execute(
        "insert into groups (name, topic, floor) values ($1, $2, 0) on conflict do nothing",
        params![name.to_owned(), topic.to_owned()],
    )
    .await?;
    let found = tx
        .fetch_all(
            "select id, floor, (select coalesce(max(seq), 0) from messages where topic = $2) \
             from groups where name = $1 and topic = $2",
            params![name.to_owned(), topic.to_owned()],
        )
        .await?;
    let Some(row) = found.first() else {
        return Err(Error::internal(format!("the group {name} of {topic} was not stored")));
    };
    let id = row.int(0)?;
    let rows = tx
        .fetch_all(
            "select seq, attempts, not_before, done from progress where group_id = $1",
            params![id],
        )
        .await?;
    let progress = rows.iter().map(|row| {
        let attempts = u32::try_from(row.int(1)?).unwrap_or(u32::MAX);
        let progress = Progress { attempts, not_before: row.int(2)?, done: row.int(3)? != 0 };
        Ok((seq(row, 0)?, progress))
    });
    Ok(StoredGroup {
        id,
        floor: seq(row, 1)?,
        head: seq(row, 2)?,
        progress: progress.collect::<Result<_>>()?,
    })
}

/// Stores what changed in a group.
pub(super) async fn save(tx: &mut Tx<Sqlite>, group: i64, changes: &Changes) -> Result<()> {
    if let Some(floor) = changes.floor {
        tx.execute("update groups set floor = $1 where id = $2", params![number(floor), group])
            .await?;
        tx.execute(
            "delete from progress where group_id = $1 and seq <= $2",
            params![group, number(floor)],
        )
        .await?;
    }
    for (seq, progress) in &changes.progress {
        tx.execute(
            "insert into progress (group_id, seq, attempts, not_before, done) \
             values ($1, $2, $3, $4, $5) on conflict (group_id, seq) do update \
             set attempts = excluded.attempts, not_before = excluded.not_before, \
             done = excluded.done",
            params![
                group,
                number(*seq),
                i64::from(progress.attempts),
                progress.not_before,
                i64::from(progress.done)
            ],
        )
        .await?;
    }
    Ok(())
}

/// Removes some of the messages stored before `time`, dead letters only before
/// `dead_time`, the oldest first; gives the bytes removed.
pub(super) async fn remove_older(tx: &mut Tx<Sqlite>, time: i64, dead_time: i64) -> Result<u64> {
    let rows = tx
        .fetch_all(
            "delete from messages where seq in (select seq from messages where stored_at < $1 \
             and (stored_at < $2 or topic not like 'dlq.%') \
             order by stored_at, seq limit $3) returning size",
            params![time, dead_time, SWEEP_ROWS],
        )
        .await?;
    sum(&rows)
}

/// Removes some of the messages, but no dead letters, that all groups of their topic
/// have answered and whose ids need not be remembered; gives the bytes removed.
pub(super) async fn remove_answered(tx: &mut Tx<Sqlite>, remembered_since: i64) -> Result<u64> {
    let rows = tx
        .fetch_all(
            "delete from messages where seq in (select m.seq from messages m \
             where m.stored_at < $1 and m.topic not like 'dlq.%' and m.seq <= coalesce((select min(g.floor) from groups g \
             where g.topic = m.topic), m.seq) order by m.stored_at, m.seq limit $2) \
             returning size",
            params![remembered_since, SWEEP_ROWS],
        )
        .await?;
    sum(&rows)
}

fn migrations() -> Migrations {
    Migrations::new("broker")
        .step(
            1,
            "messages, groups, progress",
            "create table messages (
             seq integer primary key autoincrement,
             topic text not null,
             id text not null,
             stored_at bigint not null,
             size bigint not null,
             key text,
             source text not null,
             kind text not null,
             time bigint not null,
             content_type text not null,
             headers text not null,
             payload blob not null
         );
         create index messages_by_topic on messages (topic, seq);
         create index messages_by_id on messages (topic, id);
         create index messages_by_age on messages (stored_at);
         create table groups (
             id integer primary key autoincrement,
             name text not null,
             topic text not null,
             floor bigint not null,
             unique (name, topic)
         );
         create index groups_by_topic on groups (topic, floor);
         create table progress (
             group_id bigint not null,
             seq bigint not null,
             attempts bigint not null,
             not_before bigint not null,
             done bigint not null,
             primary key (group_id, seq)
         ) without rowid;",
        )
        .step(2, "editions", "alter table messages add column edition text not null default '';")
}

fn read_message(row: &Row) -> Result<Message> {
    let headers: BTreeMap<String, String> =
        serde_json::from_str(row.text(8)?).map_err(Error::internal)?;
    Ok(Message {
        topic: row.text(1)?.to_owned(),
        id: row.text(2)?.to_owned(),
        key: row.opt_text(3)?.map(str::to_owned),
        source: row.text(4)?.to_owned(),
        kind: row.text(5)?.to_owned(),
        time: row.int(6)?,
        content_type: row.text(7)?.to_owned(),
        headers,
        payload: Bytes::from(row.blob(9)?.to_vec()),
    })
}

fn first_number(rows: &[Row]) -> Result<u64> {
    rows.first().map_or(Ok(0), |row| seq(row, 0))
}

fn sum(rows: &[Row]) -> Result<u64> {
    rows.iter().map(|row| seq(row, 0)).sum()
}

fn seq(row: &Row, column: usize) -> Result<Seq> {
    u64::try_from(row.int(column)?).map_err(Error::internal)
}

/// SQLite numbers are signed; none of ours comes near the limit.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A path as it may stand in a URL: what would end or change it is escaped.
fn url_path(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}
