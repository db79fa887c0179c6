//! What every new connection is told before anyone uses it.

use std::time::Duration;

use crate::{DatabaseConfig, Dialect, location::Location};

/// The statements that set up a connection.
///
/// SQLite: the busy timeout covers writers in other processes. `synchronous=full` makes a
/// commit survive a power cut in write-ahead mode too; the default of `normal` there may
/// lose the last ones. PostgreSQL: both timeouts are the server's, so they also end what a
/// vanished client left behind.
pub(crate) fn setup(location: &Location, config: &DatabaseConfig) -> String {
    match location.dialect {
        Dialect::Sqlite => {
            let busy = millis(config.acquire_timeout);
            let mut sql = format!("pragma busy_timeout = {busy}; pragma foreign_keys = on;");
            if !location.read_only {
                sql.push_str("pragma journal_mode = wal; pragma synchronous = full;");
            }
            sql
        }
        Dialect::Postgres => format!(
            "set statement_timeout = {}; set idle_in_transaction_session_timeout = {};",
            millis(config.statement_timeout),
            millis(config.idle_in_transaction_timeout),
        ),
    }
}

/// PostgreSQL settings for a connection that migrates: a statement may take as long as the
/// data need, but waits only so long for a lock, so that it does not queue up every other
/// statement behind itself.
pub(crate) const MIGRATING: &str = "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; \
     set lock_timeout = '60s';";

/// Whole milliseconds, at most what both databases take.
fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
