//! One writer at a time per SQLite file, in the order of asking.
//!
//! SQLite lets one connection write; another polls with growing pauses until its busy
//! timeout, so under load some starve and fail. Within a process a fair lock does better:
//! each waits in a queue and none polls. The lock belongs to the file, not to the pool,
//! because several parts of one process open the same file. Between processes SQLite's own
//! lock and the busy timeout remain.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, PoisonError, Weak},
    time::Duration,
};

use chassis_core::{Error, Result};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::LOCK_TIMEOUT;

/// Entries of files that no pool uses any more are removed when the next file is opened.
static LOCKS: LazyLock<std::sync::Mutex<HashMap<PathBuf, Weak<Mutex<()>>>>> =
    LazyLock::new(Default::default);

/// The turn to write. Dropping it lets the next one write.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// The queue of those who want to write to a file.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Mutex<()>>);

impl Writer {
    /// The queue of this file; the same one for the same path.
    pub(crate) fn of(file: &Path) -> Writer {
        // Two paths to one file must meet; a file that does not exist yet has one path.
        let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(&path).and_then(Weak::upgrade) {
            return Writer(lock);
        }
        let lock = Arc::new(Mutex::new(()));
        locks.insert(path, Arc::downgrade(&lock));
        Writer(lock)
    }

    /// Waits for the turn, at most this long. Dropping the future leaves the queue.
    pub(crate) async fn turn(&self, wait: Duration) -> Result<Turn> {
        tokio::time::timeout(wait, Arc::clone(&self.0).lock_owned()).await.map_err(|_| {
            let message = "other writes to the database took too long";
            Error::unavailable(LOCK_TIMEOUT, message).not_sent()
        })
    }
}

/// Whether a statement only reads. When in doubt it writes.
pub(crate) fn is_read(sql: &str) -> bool {
    let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
    ["select", "values", "explain", "pragma"].iter().any(|read| word.eq_ignore_ascii_case(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_recognised_and_doubts_write() {
        for (sql, read) in [
            ("select 1", true),
            ("  SELECT\n1", true),
            ("values (1)", true),
            ("insert into item values (1) returning id", false),
            ("with x as (select 1) select * from x", false),
            ("-- comment\nselect 1", false),
            ("", false),
        ] {
            assert_eq!(is_read(sql), read, "{sql}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn handles_to_one_file_share_one_queue() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        std::fs::write(&file, "").unwrap();
        let one = Writer::of(&file);
        let two = Writer::of(&folder.path().join(".").join("a.db"));
        let other = Writer::of(&folder.path().join("b.db"));
        let second = Duration::from_secs(1);

        let turn = one.turn(second).await.unwrap();
        assert_eq!(two.turn(second).await.unwrap_err().reason(), LOCK_TIMEOUT);
        assert!(other.turn(second).await.is_ok());
        drop(turn);
        assert!(two.turn(second).await.is_ok());
    }
}
