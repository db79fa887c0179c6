//! Publishing again what was published: for a broker that lost it.
//!
//! Rows become pending again in the order of `seq`, so that each key is replayed in
//! its order; in steps, so that no statement takes long and no transaction is large.

use chassis_core::Result;
use chassis_data::{Backend, params};

use super::handle::Outbox;
use super::parts::Parts;

/// Rows that one statement looks at.
const STEP: i64 = 20_000;

/// What a replay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Rows that will be published again.
    pub(super) rows: u64,
    /// The newest row that there was.
    pub(super) last: i64,
}

/// Replays what was published at `since` or later to the topics of `stream` (empty: to
/// any), as far as it stands at `upto` or before.
///
/// Dropping the future leaves open for which rows it happened.
pub(super) async fn replay<B: Backend>(
    outbox: &Outbox<B>,
    stream: &str,
    since: i64,
    upto: i64,
) -> Result<Replayed> {
    const LAST: &str = "SELECT MAX(seq) FROM
        (SELECT seq FROM chassis_outbox WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) r";
    const AGAIN: &str = "UPDATE chassis_outbox
        SET state = 0, attempts = 0, next_at = 0, published_at = NULL
        WHERE seq > $1 AND seq <= $2 AND state = 1 AND published_at >= $3
          AND SUBSTR(topic || '.', 1, LENGTH(CAST($4 AS TEXT))) = CAST($4 AS TEXT)";
    let topics = if stream.is_empty() { String::new() } else { format!("{stream}.") };
    let mut done = Replayed { rows: 0, last: i64::MIN };
    loop {
        let last = outbox.db.fetch_optional(LAST, params![done.last, upto, STEP]).await?;
        let last = last.map(|row| row.opt_int(0)).transpose()?.flatten();
        let Some(last) = last else { return Ok(done) };
        let values = params![done.last, last, since, topics.clone()];
        let changed = outbox.db.execute(AGAIN, values).await?;
        if changed > 0 {
            outbox.wake.wake(Parts::ALL);
        }
        done.rows += changed;
        done.last = last;
    }
}
