//! What an outbox writes down about the ends of streams, and about losses.
//!
//! A checkpoint says: at this time of the database, this message was handed to the
//! broker, which acknowledged it. As long as the message is in its place, all that was
//! published before is there. After a loss, the newest checkpoint that is still in its
//! place says since when to publish again.
//!
//! They stand in two rings for each stream, so that they need no clean-up: one place
//! for each of the last 60 seconds, and one for each of the last 60 minutes. A last place
//! holds the newest acknowledgement of which a relay made use: it is written by the same
//! statement as the marks, so that no row is marked without a witness that is as durable
//! as its mark, whoever dies. Where relays come and go, each asks for that of the others.
//!
//! A loss is written down before it is dealt with, so that another process goes on
//! where this one dies.

use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::{Backend, Db, Row, params};

use super::clock::millis;
use crate::broker::{Ledger, Tail, Witness};

pub(super) const TAILS: &str = "CREATE TABLE chassis_outbox_tail (
    stream TEXT NOT NULL,
    slot BIGINT NOT NULL,
    at BIGINT NOT NULL,
    position BIGINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (stream, slot)
)";

pub(super) const LOSSES: &str = "CREATE TABLE chassis_outbox_loss (
    stream TEXT NOT NULL PRIMARY KEY,
    found_at BIGINT NOT NULL,
    since BIGINT NOT NULL,
    passes BIGINT NOT NULL,
    replayed_to BIGINT NOT NULL
)";

/// Places of each ring.
const RING: i64 = 60;
/// The place of what was written with the marks; named in the statements.
pub(super) const WITH_MARKS: i64 = 2 * RING;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(super) stream: String,
    pub(super) at: i64,
    pub(super) witness: Witness,
}

impl Checkpoint {
    /// The end of a stream as it is known here.
    pub(super) fn of(tail: Tail, now: i64) -> Checkpoint {
        let at = now.saturating_sub(millis(tail.age));
        Checkpoint { stream: tail.stream, at, witness: tail.witness }
    }

    pub(super) fn tail(self, now: i64) -> Tail {
        let age = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        let age = Duration::from_millis(age);
        Tail { stream: self.stream, witness: self.witness, age, gone: false }
    }
}

/// A loss that is not healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) stream: String,
    pub(super) found_at: i64,
    /// What was published then or later may be lost.
    pub(super) since: i64,
    /// How often it was replayed.
    pub(super) passes: i64,
    /// Rows up to this one were replayed.
    pub(super) replayed_to: i64,
}

/// The places of a checkpoint of this time.
fn slots(at: i64) -> [(i64, i64); 2] {
    let slot = |unit: i64| at.div_euclid(unit).rem_euclid(RING);
    [(slot(SECOND), 0), (RING + slot(MINUTE), MINUTE)]
}

/// Writes a checkpoint down. One of the same second is replaced, one of the same
/// minute kept.
pub(super) async fn write<B: Backend>(db: &Db<B>, checkpoint: &Checkpoint) -> Result<()> {
    const SQL: &str = "INSERT INTO chassis_outbox_tail (stream, slot, at, position, id)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (stream, slot) DO UPDATE
        SET at = excluded.at, position = excluded.position, id = excluded.id
        WHERE chassis_outbox_tail.at + $6 <= excluded.at";
    let Checkpoint { stream, at, witness } = checkpoint;
    let position = i64::try_from(witness.position).map_err(Error::internal)?;
    for (slot, apart) in slots(*at) {
        let id = witness.id.clone();
        db.execute(SQL, params![stream.clone(), slot, *at, position, id, apart]).await?;
    }
    Ok(())
}

/// The checkpoint of each stream with the highest position: while that stands, all do.
pub(super) async fn highest<B: Backend>(db: &Db<B>) -> Result<Vec<Checkpoint>> {
    const SQL: &str = "SELECT stream, at, position, id FROM chassis_outbox_tail
        ORDER BY position DESC, at LIMIT 100000";
    let mut all = checkpoints(&db.fetch_all(SQL, Vec::new()).await?)?;
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|checkpoint| seen.insert(checkpoint.stream.clone()));
    Ok(all)
}

/// All checkpoints of a stream, the newest first.
pub(super) async fn of<B: Backend>(db: &Db<B>, stream: &str) -> Result<Vec<Checkpoint>> {
    const SQL: &str = "SELECT stream, at, position, id FROM chassis_outbox_tail
        WHERE stream = $1 ORDER BY at DESC, position DESC";
    checkpoints(&db.fetch_all(SQL, params![stream]).await?)
}

/// Makes known here what the broker has acknowledged to the relays of all processes, as
/// far as they have marked it.
///
/// Dropping the future leaves open how much of it is known.
pub(super) async fn recall<B: Backend>(db: &Db<B>, ledger: &Ledger, now: i64) -> Result<()> {
    const SQL: &str = "SELECT stream, at, position, id FROM chassis_outbox_tail
        WHERE slot = $1 ORDER BY stream LIMIT 100000";
    let noted = checkpoints(&db.fetch_all(SQL, params![WITH_MARKS]).await?)?;
    noted.into_iter().for_each(|noted| ledger.recall(noted.tail(now)));
    Ok(())
}

fn checkpoints(rows: &[Row]) -> Result<Vec<Checkpoint>> {
    rows.iter()
        .map(|row| {
            let position = u64::try_from(row.int(2)?).map_err(Error::internal)?;
            let witness = Witness { position, id: row.text(3)?.to_owned() };
            Ok(Checkpoint { stream: row.text(0)?.to_owned(), at: row.int(1)?, witness })
        })
        .collect()
}

/// Writes a loss down, and forgets the checkpoints that it made void: those after `since`,
/// and those behind `kept`, the last position that is still there. One that is not
/// healed yet keeps its earlier beginning. `false` where somebody found it already, later
/// than `since_found`: of several relays that find the same loss at once, one writes it.
pub(super) async fn lose<B: Backend>(
    db: &Db<B>,
    stream: &str,
    (since, kept): (i64, u64),
    now: i64,
    since_found: i64,
) -> Result<bool> {
    const LOSE: &str = "INSERT INTO chassis_outbox_loss
            (stream, found_at, since, passes, replayed_to) VALUES ($1, $2, $3, 0, 0)
        ON CONFLICT (stream) DO UPDATE SET found_at = excluded.found_at, passes = 0,
            since = CASE WHEN chassis_outbox_loss.since < excluded.since
                THEN chassis_outbox_loss.since ELSE excluded.since END
        WHERE chassis_outbox_loss.found_at <= $4";
    const FORGET: &str =
        "DELETE FROM chassis_outbox_tail WHERE stream = $1 AND (at > $2 OR position > $3)";
    let kept = i64::try_from(kept).map_err(Error::internal)?;
    let mut tx = db.begin().await?;
    let values = params![stream.to_owned(), now, since, since_found];
    if tx.execute(LOSE, values).await? == 0 {
        tx.rollback().await;
        return Ok(false);
    }
    tx.execute(FORGET, params![stream.to_owned(), since, kept]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Forgets what was written down about a loss's stream before others found it, by who had
/// not heard of that.
pub(super) async fn forget<B: Backend>(db: &Db<B>, loss: &Loss) -> Result<()> {
    const SQL: &str = "DELETE FROM chassis_outbox_tail WHERE stream = $1 AND at > $2 AND at <= $3";
    db.execute(SQL, params![&loss.stream, loss.since, loss.found_at]).await.map(drop)
}

/// The last position that the stream of a loss is known to have kept.
pub(super) async fn kept<B: Backend>(db: &Db<B>, loss: &Loss) -> Result<u64> {
    const SQL: &str =
        "SELECT MAX(position) FROM chassis_outbox_tail WHERE stream = $1 AND at <= $2";
    let row = db.fetch_optional(SQL, params![&loss.stream, loss.since]).await?;
    let kept = row.map(|row| row.opt_int(0)).transpose()?.flatten();
    Ok(kept.and_then(|kept| u64::try_from(kept).ok()).unwrap_or(0))
}

/// Losses that are not healed.
pub(super) async fn losses<B: Backend>(db: &Db<B>) -> Result<Vec<Loss>> {
    const SQL: &str = "SELECT stream, found_at, since, passes, replayed_to
        FROM chassis_outbox_loss ORDER BY stream";
    let loss = |row: &Row| {
        Ok(Loss {
            stream: row.text(0)?.to_owned(),
            found_at: row.int(1)?,
            since: row.int(2)?,
            passes: row.int(3)?,
            replayed_to: row.int(4)?,
        })
    };
    db.fetch_all(SQL, Vec::new()).await?.iter().map(loss).collect()
}

/// Notes that a loss was replayed for the `passes`-th time.
pub(super) async fn replayed<B: Backend>(
    db: &Db<B>,
    loss: &Loss,
    passes: i64,
    to: i64,
) -> Result<()> {
    const SQL: &str = "UPDATE chassis_outbox_loss SET passes = $3, replayed_to = $4
        WHERE stream = $1 AND found_at = $2 AND passes < $3";
    db.execute(SQL, params![loss.stream.clone(), loss.found_at, passes, to]).await.map(drop)
}

/// Notes that somebody replayed all streams by hand: it counts for each loss that
/// began then or later.
pub(super) async fn replayed_by_hand<B: Backend>(db: &Db<B>, since: i64, to: i64) -> Result<()> {
    const SQL: &str = "UPDATE chassis_outbox_loss SET passes = 2, replayed_to = $2
        WHERE since >= $1 AND passes < 2";
    db.execute(SQL, params![since, to]).await.map(drop)
}

/// Removes a loss whose rows were all published again; `false` where some wait.
pub(super) async fn heal<B: Backend>(db: &Db<B>, loss: &Loss) -> Result<bool> {
    const SQL: &str = "DELETE FROM chassis_outbox_loss
        WHERE stream = $1 AND found_at = $2 AND NOT EXISTS
        (SELECT 1 FROM chassis_outbox WHERE state = 0 AND seq <= $3)";
    let values = params![loss.stream.clone(), loss.found_at, loss.replayed_to];
    Ok(db.execute(SQL, values).await? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_stand_in_a_ring_of_seconds_and_one_of_minutes() {
        assert_eq!(slots(0), [(0, 0), (60, MINUTE)]);
        assert_eq!(slots(61_999), [(1, 0), (61, MINUTE)]);
        assert_eq!(slots(3_600_000 + 59_000), [(59, 0), (60, MINUTE)]);
        assert_eq!(slots(-1), [(59, 0), (119, MINUTE)]);
    }
}
