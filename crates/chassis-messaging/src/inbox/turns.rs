//! Whether it is a message's turn.
//!
//! A message of a key may say which one comes before it. It is its turn when that one has
//! its note, which the statement that notes the message looks up by the primary key: in
//! turn costs no statement more than out of turn. Only where nothing was noted is a second
//! one needed, to find out why.
//!
//! Some messages get no note although nobody will wait for them: what went to the dead
//! letters must be handled when it comes back, and what was passed over may find a handler
//! in a later version. They leave a mark instead, a note of another consumer's name, so
//! that those behind them go on. A mark is left too for one that was not waited for any
//! longer; when it comes after all, it is known to be late.
//!
//! A message that is too early leaves a row that says how often it was sent back: for all
//! processes of the group, and over their restarts.

use std::collections::HashSet;

use chassis_core::{Error, Result, unix_ms};
use chassis_data::{Backend, Dialect, Tx, params};

use super::Inbox;
use crate::message::{Message, Previous};
use crate::outbox::millis;

pub(super) const EARLY: &str = "CREATE TABLE chassis_inbox_early (
    consumer TEXT NOT NULL,
    message_id TEXT NOT NULL,
    since BIGINT NOT NULL,
    times BIGINT NOT NULL,
    PRIMARY KEY (consumer, message_id)
)";
pub(super) const EARLY_AGE: &str =
    "CREATE INDEX chassis_inbox_early_age ON chassis_inbox_early (since)";

/// How long it is remembered that a message waits. No wait is nearly as long.
const KEEP_EARLY: i64 = 24 * 60 * 60 * 1000;
/// Rows removed by one statement.
const CLEAN_BATCH: i64 = 1000;
/// Ids looked up by one statement.
const LOOK_BATCH: usize = 1000;

const LOOK_POSTGRES: &str = "SELECT ids.id,
    CAST((SELECT 1 FROM chassis_inbox WHERE consumer = $1 AND message_id = ids.id) AS BIGINT),
    CAST((SELECT 1 FROM chassis_inbox WHERE consumer = $2 AND message_id = ids.id) AS BIGINT)
    FROM json_array_elements_text(CAST($3 AS json)) AS ids(id)";
const LOOK_SQLITE: &str = "SELECT ids.value,
    (SELECT 1 FROM chassis_inbox WHERE consumer = $1 AND message_id = ids.value),
    (SELECT 1 FROM chassis_inbox WHERE consumer = $2 AND message_id = ids.value)
    FROM json_each($3) AS ids";

/// What a message finds when its turn is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is its turn, and it is noted.
    Noted,
    /// It was handled before.
    Repeated,
    /// What comes before it was not handled yet.
    Early,
    /// Those behind it have gone on without it.
    Late,
}

/// Ids with a note, and ids with a mark.
#[derive(Default)]
struct Known {
    noted: HashSet<String>,
    passed: HashSet<String>,
}

impl Known {
    fn has(&self, id: &str) -> bool {
        self.noted.contains(id) || self.passed.contains(id)
    }
}

impl<B: Backend> Inbox<B> {
    /// Notes the message if it is its turn.
    pub(crate) async fn turn(
        &self,
        tx: &mut Tx<B>,
        consumer: &str,
        message: &Message,
    ) -> Result<Turn> {
        const SQL: &str = "INSERT INTO chassis_inbox (consumer, message_id, received_at)
            SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS BIGINT)
            WHERE NOT EXISTS (SELECT 1 FROM chassis_inbox
                    WHERE consumer = $4 AND message_id = $2)
              AND (CAST($5 AS TEXT) IS NULL
                OR EXISTS (SELECT 1 FROM chassis_inbox WHERE consumer = $1 AND message_id = $5)
                OR EXISTS (SELECT 1 FROM chassis_inbox WHERE consumer = $4 AND message_id = $5))
            ON CONFLICT DO NOTHING";
        let previous = self.awaited(message).map(|previous| previous.id);
        let passed = passed(consumer);
        let id = message.id.as_str();
        if tx.execute(SQL, params![consumer, id, unix_ms(), &passed, previous]).await? == 1 {
            return Ok(Turn::Noted);
        }
        let ids: Vec<&str> = std::iter::once(id).chain(previous).collect();
        let known = self.look(tx, consumer, &ids).await?;
        Ok(match known.noted.contains(id) {
            true => Turn::Repeated,
            false if known.passed.contains(id) => Turn::Late,
            // Where the one before it was noted in between, the next look finds it.
            false => Turn::Early,
        })
    }

    /// Notes of several messages those whose turn it is, in their order: one may follow
    /// another one of them.
    pub(crate) async fn turns(
        &self,
        tx: &mut Tx<B>,
        consumer: &str,
        messages: &[&Message],
    ) -> Result<Vec<Turn>> {
        let mut ids: Vec<&str> = Vec::new();
        for message in messages.iter().filter(|message| message.has_turn()) {
            ids.push(&message.id);
            ids.extend(self.awaited(message).map(|previous| previous.id));
        }
        let mut known = Known::default();
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(LOOK_BATCH) {
            let more = self.look(tx, consumer, ids).await?;
            known.noted.extend(more.noted);
            known.passed.extend(more.passed);
        }
        let mut done: HashSet<&str> = HashSet::new();
        let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
        for message in messages {
            let id = message.id.as_str();
            let previous = self.awaited(message).map(|previous| previous.id);
            let early = previous.is_some_and(|id| !known.has(id) && !done.contains(id));
            turns.push(match known.noted.contains(id) {
                true => Turn::Repeated,
                false if message.has_turn() && known.passed.contains(id) => Turn::Late,
                false if early => Turn::Early,
                false => {
                    done.insert(id);
                    Turn::Noted
                }
            });
        }
        let mine = messages.iter().zip(&turns).filter(|(_, turn)| **turn == Turn::Noted);
        let mine: Vec<&str> = mine.map(|(message, _)| message.id.as_str()).collect();
        let mut first = self.first_times(tx, consumer, &mine).await?.into_iter();
        for turn in turns.iter_mut().filter(|turn| **turn == Turn::Noted) {
            if first.next() != Some(true) {
                *turn = Turn::Repeated;
            }
        }
        Ok(turns)
    }

    /// What the message must wait for. A note of what is older than the inbox remembers
    /// may be gone, and the broker cannot have it any more.
    fn awaited<'a>(&self, message: &'a Message) -> Option<Previous<'a>> {
        let oldest = unix_ms().saturating_sub(millis(self.retention));
        message.previous().filter(|previous| previous.at > oldest)
    }

    async fn look(&self, tx: &mut Tx<B>, consumer: &str, ids: &[&str]) -> Result<Known> {
        let look = match tx.dialect() {
            Dialect::Postgres => LOOK_POSTGRES,
            Dialect::Sqlite => LOOK_SQLITE,
        };
        let list = serde_json::to_string(ids).map_err(Error::internal)?;
        let mut known = Known::default();
        for row in tx.fetch_all(look, params![consumer, passed(consumer), list]).await? {
            let id = row.text(0)?;
            if row.opt_int(1)?.is_some() {
                known.noted.insert(id.to_owned());
            }
            if row.opt_int(2)?.is_some() {
                known.passed.insert(id.to_owned());
            }
        }
        Ok(known)
    }

    /// Marks a message that nobody is to wait for, in the transaction of the one that does
    /// not wait any longer.
    pub(crate) async fn go_on_without(
        &self,
        tx: &mut Tx<B>,
        consumer: &str,
        previous: &str,
    ) -> Result<()> {
        tx.execute(MARK, params![passed(consumer), previous, unix_ms()]).await.map(drop)
    }

    /// Marks a message that nobody is to wait for.
    ///
    /// Dropping the future leaves open whether it happened.
    pub(crate) async fn pass(&self, consumer: &str, id: &str) -> Result<()> {
        self.db.execute(MARK, params![passed(consumer), id, unix_ms()]).await.map(drop)
    }

    /// Writes down that a message is sent back because it came too early, and gives how
    /// often it was.
    ///
    /// Dropping the future leaves open whether it happened.
    pub(crate) async fn waits(&self, consumer: &str, id: &str) -> Result<u32> {
        const SQL: &str = "INSERT INTO chassis_inbox_early (consumer, message_id, since, times)
            VALUES ($1, $2, $3, 1)
            ON CONFLICT (consumer, message_id) DO UPDATE
                SET times = chassis_inbox_early.times + 1
            RETURNING times";
        let row = self.db.fetch_optional(SQL, params![consumer, id, unix_ms()]).await?;
        let row = row.ok_or_else(|| Error::internal("the wait was not returned"))?;
        Ok(u32::try_from(row.int(0)?).unwrap_or(u32::MAX))
    }

    /// How often a message was sent back because it came too early.
    pub(crate) async fn sent_back(&self, consumer: &str, id: &str) -> Result<u32> {
        const SQL: &str =
            "SELECT times FROM chassis_inbox_early WHERE consumer = $1 AND message_id = $2";
        let row = self.db.fetch_optional(SQL, params![consumer, id]).await?;
        let times = row.map(|row| row.int(0)).transpose()?.unwrap_or(0);
        Ok(u32::try_from(times).unwrap_or(u32::MAX))
    }

    /// Forgets old waits.
    pub(super) async fn clean_early(&self) -> Result<()> {
        const SQL: &str = "DELETE FROM chassis_inbox_early WHERE (consumer, message_id) IN (
            SELECT consumer, message_id FROM chassis_inbox_early
            WHERE since < $1 ORDER BY since LIMIT $2)";
        let before = unix_ms().saturating_sub(KEEP_EARLY);
        while self.db.execute(SQL, params![before, CLEAN_BATCH]).await? >= CLEAN_BATCH as u64 {}
        Ok(())
    }
}

const MARK: &str = "INSERT INTO chassis_inbox (consumer, message_id, received_at)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// The consumer under whose name the marks stand. No group and no topic has a slash.
fn passed(consumer: &str) -> String {
    format!("{consumer}/passed")
}
