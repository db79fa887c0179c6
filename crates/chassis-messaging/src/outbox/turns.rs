//! Which message of a key and topic was appended before another one.
//!
//! A broker with several consumers in one group hands out the messages of a key in any
//! order once one of them comes again. So a message that must be handled in turn says
//! which one comes before it, and a consumer that has not handled that one waits. It is
//! the outbox that knows: here the last message of each key stands in a row, which an
//! append changes in its own transaction. The lock on that row puts those who append
//! under one key in line, so that the order of the rows, that of the commits and that of
//! the messages are one.
//!
//! A row that is parked leaves a gap that nobody else knows of. So in the transaction that
//! parks it another one is appended, which says only that: who waits for the parked message
//! goes on. When that is published after all, it is late. A parked row whose headers cannot
//! be read does not know its place any more; then the rows before it are asked.
//!
//! Rows are kept for as long as a consumer may still have to wait for what they name; a
//! key that was quiet for longer begins anew. No index by time, which would make each
//! append write two: the clean-up walks along the primary key, a step at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis_core::{Error, Result, Shutdown, unix_ms};
use chassis_data::{Backend, Db, Row, Tx, params};
use tokio::time::sleep;

use super::clock::millis;
use super::handle::Outbox;

use crate::message::{GIVEN_UP, GIVEN_UP_TYPE, MAX_NAMED_ID_BYTES, Message, PREVIOUS};

pub(super) const TABLE: &str = "CREATE TABLE chassis_outbox_turn (
    topic TEXT NOT NULL,
    msg_key TEXT NOT NULL,
    id TEXT NOT NULL,
    at BIGINT NOT NULL,
    previous_id TEXT,
    previous_at BIGINT,
    PRIMARY KEY (topic, msg_key)
)";

/// Room for a second version of a row on its page, as in the outbox itself.
pub(super) const STORAGE_POSTGRES: &str = "ALTER TABLE chassis_outbox_turn SET (fillfactor = 50)";

/// Between two walks along the table, and between two steps of one.
const EVERY: Duration = Duration::from_secs(60 * 60);
const PAUSE: Duration = Duration::from_millis(200);

/// Rows before a damaged one among which its predecessor is looked for: no index has them.
const LOOK_BACK: i64 = 100_000;

/// Rows that a step of the clean-up looks at.
const STEP: i64 = 5000;

/// Writes into the message what comes before it, and makes it the last of its key.
pub(super) async fn take<B: Backend>(tx: &mut Tx<B>, message: &mut Message, at: i64) -> Result<()> {
    const TAKE: &str = "INSERT INTO chassis_outbox_turn (topic, msg_key, id, at)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (topic, msg_key) DO UPDATE SET
            previous_id = chassis_outbox_turn.id, previous_at = chassis_outbox_turn.at,
            id = excluded.id, at = excluded.at
        RETURNING previous_id, previous_at";
    let Some(key) = &message.key else {
        message.headers.remove(PREVIOUS);
        return Ok(());
    };
    if message.id.len() > MAX_NAMED_ID_BYTES {
        let text = "the id of a message that is to be handled in turn has more than 1024 bytes";
        return Err(Error::invalid_argument("INVALID_MESSAGE", text));
    }
    let row = tx.fetch_optional(TAKE, params![&message.topic, key, &message.id, at]).await?;
    let row = row.ok_or_else(|| Error::internal("the place in the key was not returned"))?;
    let previous = match (row.opt_text(0)?, row.opt_int(1)?) {
        (Some(id), Some(at)) => format!("{at} {id}"),
        _ => String::new(),
    };
    message.headers.insert(PREVIOUS.to_owned(), previous);
    Ok(())
}

/// Tells those who wait for a row that is being parked. Does nothing for one without a turn.
pub(super) async fn given_up<B: Backend>(tx: &mut Tx<B>, seq: i64) -> Result<()> {
    const LOOK: &str = "SELECT part, source, topic, msg_key, id, headers FROM chassis_outbox
        WHERE seq = $1 AND state = 2 AND msg_key IS NOT NULL";
    const SAY: &str = "INSERT INTO chassis_outbox
        (part, time, id, source, kind, topic, msg_key, content_type, headers, payload)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let Some(row) = tx.fetch_optional(LOOK, params![seq]).await? else { return Ok(()) };
    let (topic, key) = (row.text(2)?, row.text(3)?);
    let previous = match serde_json::from_str::<BTreeMap<String, String>>(row.text(5)?) {
        Ok(mut headers) => headers.remove(PREVIOUS),
        Err(_) => before(tx, seq, topic, key).await?,
    };
    let Some(previous) = previous else { return Ok(()) };
    // It stands where the parked one stood: behind what came before that.
    let message = Message::new(topic, GIVEN_UP_TYPE, Vec::new())
        .with_key(key)
        .with_header(GIVEN_UP, row.text(4)?)
        .with_header(PREVIOUS, previous);
    let headers = serde_json::to_string(&message.headers).map_err(Error::internal)?;
    let Message { time, id, kind, topic, key, content_type, payload, .. } = message;
    let (part, source) = (row.int(0)?, row.text(1)?);
    let payload = payload.to_vec();
    let values = params![part, time, id, source, kind, topic, key, content_type, headers, payload];
    tx.execute(SAY, values).await.map(drop)
}

/// What came before a row, as its header would say it, where that cannot be read: the newest
/// row of the same key with a turn, as far as it is still here. The rows of a key are in the
/// order of their turns. `None` where the key has no turns.
async fn before<B: Backend>(
    tx: &mut Tx<B>,
    seq: i64,
    topic: &str,
    key: &str,
) -> Result<Option<String>> {
    const HAS_TURNS: &str = "SELECT 1 FROM chassis_outbox_turn WHERE topic = $1 AND msg_key = $2";
    const SQL: &str = "SELECT time, id FROM chassis_outbox
        WHERE seq < $1 AND seq >= $2 AND topic = $3 AND msg_key = $4 AND kind <> $5
          AND headers LIKE $6
        ORDER BY seq DESC LIMIT 1";
    if tx.fetch_optional(HAS_TURNS, params![topic, key]).await?.is_none() {
        return Ok(None);
    }
    let turn = format!("%\"{PREVIOUS}\"%");
    let oldest = seq.saturating_sub(LOOK_BACK);
    let values = params![seq, oldest, topic, key, GIVEN_UP_TYPE, turn];
    let row = tx.fetch_optional(SQL, values).await?;
    let named = |row: Row| Ok(format!("{} {}", row.int(0)?, row.text(1)?));
    row.map_or(Ok(String::new()), named).map(Some)
}

/// Removes rows of keys that were quiet for too long, as long as it runs. Several may run.
pub(super) async fn keep_clean<B: Backend>(outbox: Outbox<B>, shutdown: Shutdown) {
    let mut place = Place::default();
    loop {
        let pause = match outbox.clean_turns(&mut place).await {
            Ok(true) => PAUSE,
            Ok(false) => EVERY,
            Err(error) => {
                tracing::debug!(error = %error.chain(), "quiet keys were not removed");
                EVERY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.requested() => return,
        }
    }
}

impl<B: Backend> Outbox<B> {
    /// One step; `false` at the end.
    async fn clean_turns(&self, place: &mut Place) -> Result<bool> {
        let before = unix_ms().saturating_sub(millis(self.config.keep_turns));
        let next = clean(&self.db, place, before).await?;
        let goes_on = next.is_some();
        *place = next.unwrap_or_default();
        Ok(goes_on)
    }
}

/// Where a clean-up goes on: behind this topic and key.
type Place = (String, String);

/// Looks at the next rows and removes those that are older. `None` at the end.
async fn clean<B: Backend>(db: &Db<B>, (topic, key): &Place, before: i64) -> Result<Option<Place>> {
    const LAST: &str = "SELECT topic, msg_key FROM chassis_outbox_turn
        WHERE (topic, msg_key) > ($1, $2) ORDER BY topic, msg_key LIMIT 1 OFFSET $3";
    const REMOVE: &str = "DELETE FROM chassis_outbox_turn
        WHERE (topic, msg_key) > ($1, $2) AND (topic, msg_key) <= ($3, $4) AND at < $5";
    const REMOVE_REST: &str = "DELETE FROM chassis_outbox_turn
        WHERE (topic, msg_key) > ($1, $2) AND at < $3";
    let last = db.fetch_optional(LAST, params![topic, key, STEP]).await?;
    let Some(row) = last else {
        db.execute(REMOVE_REST, params![topic, key, before]).await?;
        return Ok(None);
    };
    let place = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
    db.execute(REMOVE, params![topic, key, &place.0, &place.1, before]).await?;
    Ok(Some(place))
}
