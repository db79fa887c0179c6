//! The tables of the outbox.
//!
//! `seq` comes from the database. It is not the order of commits, so it is never
//! used as a cursor: what is pending is found by its state, and a row that
//! commits late is found all the same. It orders the rows of one key, whose
//! writers a lock on the business row already puts in line.
//!
//! `part` is the hash of the key; a partition is what a relay leases. On PostgreSQL
//! the pending rows are indexed by it, so that a relay never walks over those of
//! others (by `seq + 0`, see `table`). SQLite has one process and reads all partitions at once, by `seq`.
//!
//! A row is written twice, when it is appended and when it is marked, and then
//! removed. On PostgreSQL half of each page is left free for the second version:
//! it stays on the page that is in memory anyhow, and its log record holds only
//! what changed (measured: 180 bytes instead of 900). Autovacuum comes early and
//! does not pause, since an index of pending rows is only as fast as it is free
//! of dead entries. There is no index of published rows: they are removed in the
//! order of `seq`, so that one would only slow the marks down.

use chassis_data::{Dialect, Migrations};

use super::checkpoints;
use super::parts::PARTITIONS;
use super::turns;

pub(crate) const PENDING: i64 = 0;
pub(crate) const PUBLISHED: i64 = 1;
pub(crate) const PARKED: i64 = 2;
pub(crate) const DELAYED: i64 = 3;

/// The partition of a key, the same in every version and process: FNV-1a with
/// the first half of MurmurHash3's finaliser, since FNV mixes the last bytes
/// badly. Sources: Fowler, Noll, Vo, <http://www.isthe.com/chongo/tech/comp/fnv/>;
/// Appleby, <https://github.com/aappleby/smhasher>.
pub(crate) fn partition(key: &str) -> i64 {
    (hash(key) % PARTITIONS as u64).cast_signed()
}

/// A number of a key, the same in every version and process; see [`partition`].
pub(crate) fn hash(key: &str) -> u64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

const TABLE: &str = "CREATE TABLE chassis_outbox (
    seq {identity},
    part BIGINT NOT NULL,
    state BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL DEFAULT 0,
    published_at BIGINT,
    time BIGINT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    topic TEXT NOT NULL,
    msg_key TEXT,
    content_type TEXT NOT NULL,
    headers TEXT NOT NULL,
    payload {blob} NOT NULL,
    last_error TEXT
)";

const INDEX_PENDING_SQLITE: &str =
    "CREATE INDEX chassis_outbox_pending ON chassis_outbox (seq) WHERE state = 0";
const INDEX_PENDING_POSTGRES: &str =
    "CREATE INDEX chassis_outbox_pending ON chassis_outbox (part, (seq + 0)) WHERE state = 0";
const INDEX_BLOCKED: &str = "CREATE INDEX chassis_outbox_blocked
    ON chassis_outbox (next_at, msg_key) WHERE state = 0 AND next_at > 0";
const INDEX_PARKED: &str =
    "CREATE INDEX chassis_outbox_parked ON chassis_outbox (seq) WHERE state = 2";
const INDEX_DELAYED: &str =
    "CREATE INDEX chassis_outbox_delayed ON chassis_outbox (next_at) WHERE state = 3";
/// For whoever cancels one.
const INDEX_DELAYED_ID: &str =
    "CREATE INDEX chassis_outbox_delayed_id ON chassis_outbox (id) WHERE state = 3";
const LEASES: &str = "CREATE TABLE chassis_outbox_lease (
    part BIGINT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    token BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
)";
const RELAYS: &str = "CREATE TABLE chassis_outbox_relay (
    owner TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
)";

const STORAGE_POSTGRES: &str = "ALTER TABLE chassis_outbox SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
)";

/// The migrations of the outbox for one kind of database.
pub(crate) fn migrations(dialect: Dialect) -> Migrations {
    let pending = match dialect {
        Dialect::Sqlite => INDEX_PENDING_SQLITE,
        Dialect::Postgres => INDEX_PENDING_POSTGRES,
    };
    let tables = Migrations::new("outbox")
        .step(1, "outbox", TABLE)
        .step(2, "index of pending rows", pending)
        .step(3, "index of rows that wait", INDEX_BLOCKED)
        .step(4, "index of parked rows", INDEX_PARKED)
        .step(5, "leases", LEASES)
        .step(6, "relays", RELAYS);
    let tables = match dialect {
        Dialect::Sqlite => tables,
        Dialect::Postgres => tables.step(7, "storage", STORAGE_POSTGRES),
    };
    let tables = tables.step(8, "index of delayed rows", INDEX_DELAYED);
    let tables = tables
        .step(20, "ends of streams", checkpoints::TAILS)
        .step(21, "losses", checkpoints::LOSSES)
        .step(22, "index of the ids of delayed rows", INDEX_DELAYED_ID);
    let tables = tables.step(30, "last of each key", turns::TABLE);
    match dialect {
        Dialect::Sqlite => tables,
        Dialect::Postgres => tables.step(31, "storage of that", turns::STORAGE_POSTGRES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_all_partitions_and_stay_there() {
        let mut count = [0; PARTITIONS];
        for n in 0..1600 {
            count[partition(&format!("item-{n}")) as usize] += 1;
        }
        assert!(count.iter().all(|&n| (50..200).contains(&n)), "{count:?}");
        // Written down: rows of an earlier version must hash the same.
        assert_eq!([partition(""), partition("a"), partition("item-1")], [2, 13, 8]);
    }
}
