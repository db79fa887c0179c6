//! Whose time counts: the database's, since it is the one clock that all copies share.
//!
//! Leases, backoffs and time-outs are written by one process and read by
//! another. On PostgreSQL the server's clock decides. SQLite has no server: its
//! users are on one machine, so that machine's clock serves. A test moves the
//! clock by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chassis_core::{Error, Result, unix_ms};
use chassis_data::{Backend, Db, Dialect};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The clock of leases and time-outs, in unix milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Database,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The database's clock; this machine's on SQLite.
    #[must_use]
    pub fn database() -> Clock {
        Clock(Source::Database)
    }

    /// A clock that stands still until it is moved, for tests. Clones share it.
    #[must_use]
    pub fn manual(start_ms: i64) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicI64::new(start_ms))))
    }

    /// Moves a manual clock on; does nothing on another.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::SeqCst);
        }
    }
}

/// A duration in milliseconds; what does not fit counts as for ever.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that is read from the database now and then and runs on by itself in
/// between, so that not every look at the time is a round trip.
///
/// What it shows may be a little late, never early by more than the two clocks
/// drift apart between two readings. Every use of it is safe when it is late.
pub(crate) struct DbTime<B: Backend> {
    db: Db<B>,
    clock: Clock,
    base: Mutex<Option<(i64, Instant)>>,
}

impl<B: Backend> DbTime<B> {
    pub(crate) fn new(db: Db<B>, clock: Clock) -> Self {
        Self { db, clock, base: Mutex::new(None) }
    }

    /// Asks the database.
    pub(crate) async fn read(&self) -> Result<i64> {
        let now = match (&self.clock.0, self.db.dialect()) {
            (Source::Manual(now), _) => now.load(Ordering::SeqCst),
            (Source::Database, Dialect::Sqlite) => unix_ms(),
            (Source::Database, Dialect::Postgres) => {
                const SQL: &str =
                    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
                let row = self.db.fetch_optional(SQL, Vec::new()).await?;
                row.ok_or_else(|| Error::internal("the database did not tell the time"))?.int(0)?
            }
        };
        *self.base.lock() = Some((now, Instant::now()));
        Ok(now)
    }

    /// The last reading plus the time since; before the first one, this machine's
    /// time.
    pub(crate) fn estimate(&self) -> i64 {
        if let Source::Manual(now) = &self.clock.0 {
            return now.load(Ordering::SeqCst);
        }
        match *self.base.lock() {
            Some((at, since)) => at.saturating_add(millis(since.elapsed())),
            None => unix_ms(),
        }
    }
}
