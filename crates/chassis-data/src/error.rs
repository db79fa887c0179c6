//! What a database failure means to a caller.
//!
//! The message is fit for anyone: it names no table, no column and no server. The database's
//! own words are the private source.

use chassis_core::{Code, Error};
use sqlx::error::ErrorKind;

/// Reason of a serialisation failure: another transaction won. [`Code::Aborted`].
pub const SERIALIZATION_FAILURE: &str = "SERIALIZATION_FAILURE";
/// Reason of a deadlock that this transaction lost. [`Code::Aborted`].
pub const DEADLOCK: &str = "DEADLOCK";
/// Reason of a lock that was not free in time. [`Code::Aborted`].
pub const LOCK_TIMEOUT: &str = "LOCK_TIMEOUT";
/// Reason of a row that exists already under a unique key. [`Code::AlreadyExists`].
pub const UNIQUE_VIOLATION: &str = "UNIQUE_VIOLATION";
/// Reason of a commit whose outcome is not known. [`Code::Unknown`].
pub const COMMIT_UNKNOWN: &str = "COMMIT_UNKNOWN";

/// Translates an sqlx error into the chassis vocabulary.
///
/// | failure | code | reason |
/// |---|---|---|
/// | unique or primary key | `AlreadyExists` | `UNIQUE_VIOLATION` |
/// | foreign key | `FailedPrecondition` | `FOREIGN_KEY_VIOLATION` |
/// | check, exclusion, not null | `FailedPrecondition` | `CONSTRAINT_VIOLATION` |
/// | serialisation failure, deadlock, lock wait | `Aborted` | [`SERIALIZATION_FAILURE`], [`DEADLOCK`], [`LOCK_TIMEOUT`] |
/// | statement timeout | `DeadlineExceeded` | `STATEMENT_TIMEOUT` |
/// | no connection, pool exhausted, shutdown, disk full | `Unavailable` | `DATABASE_UNAVAILABLE`, `POOL_TIMEOUT`, `DISK_FULL` |
/// | a row was expected | `NotFound` | `ROW_NOT_FOUND` |
/// | everything else | `Internal` | `INTERNAL` |
#[must_use]
pub fn map_error(error: sqlx::Error) -> Error {
    let (code, reason, message) = match &error {
        sqlx::Error::Database(database) => {
            match classify(&database.kind(), database.code().as_deref()) {
                Some(meaning) => meaning,
                None => return Error::internal(error),
            }
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => UNAVAILABLE,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            let message = "no database connection was free in time";
            return Error::unavailable("POOL_TIMEOUT", message).with_source(error).not_sent();
        }
        sqlx::Error::RowNotFound => (Code::NotFound, "ROW_NOT_FOUND", "not found"),
        _ => return Error::internal(error),
    };
    Error::new(code, reason, message).with_source(error)
}

type Meaning = (Code, &'static str, &'static str);

const UNAVAILABLE: Meaning =
    (Code::Unavailable, "DATABASE_UNAVAILABLE", "the database is not available");
const CONFLICT: &str = "a concurrent change got in the way";

/// What a database's own code means. An SQLSTATE has five characters, an SQLite code fewer.
fn classify(kind: &ErrorKind, code: Option<&str>) -> Option<Meaning> {
    Some(match kind {
        ErrorKind::UniqueViolation => (Code::AlreadyExists, UNIQUE_VIOLATION, "it exists already"),
        ErrorKind::ForeignKeyViolation => (
            Code::FailedPrecondition,
            "FOREIGN_KEY_VIOLATION",
            "something that it refers to does not exist, or something refers to it",
        ),
        ErrorKind::NotNullViolation | ErrorKind::CheckViolation | ErrorKind::ExclusionViolation => {
            (Code::FailedPrecondition, "CONSTRAINT_VIOLATION", "the data do not allow it")
        }
        _ => match code {
            Some(state) if state.len() == 5 => return sqlstate(state),
            Some(number) => return sqlite(number),
            None => return None,
        },
    })
}

/// Source: PostgreSQL, appendix A, "Error codes".
fn sqlstate(state: &str) -> Option<Meaning> {
    Some(match state {
        "40001" => (Code::Aborted, SERIALIZATION_FAILURE, CONFLICT),
        "40P01" => (Code::Aborted, DEADLOCK, CONFLICT),
        "55P03" => (Code::Aborted, LOCK_TIMEOUT, CONFLICT),
        "57014" => (Code::DeadlineExceeded, "STATEMENT_TIMEOUT", "the database took too long"),
        "53100" => (Code::Unavailable, "DISK_FULL", UNAVAILABLE.2),
        // Connection exceptions, insufficient resources, operator intervention, and a
        // transaction that the server gave up because nothing happened in it.
        "25P03" => UNAVAILABLE,
        _ if ["08", "53", "57"].iter().any(|class| state.starts_with(class)) => UNAVAILABLE,
        _ => return None,
    })
}

/// Source: sqlite.org/rescode.html; the low byte is the primary code.
fn sqlite(number: &str) -> Option<Meaning> {
    Some(match number.parse::<i32>().ok()? & 0xff {
        5 | 6 => (Code::Aborted, LOCK_TIMEOUT, CONFLICT),
        13 => (Code::Unavailable, "DISK_FULL", UNAVAILABLE.2),
        8 | 10 | 14 => UNAVAILABLE,
        _ => return None,
    })
}

/// Whether the connection itself is gone, so that another one may work.
pub(crate) fn is_connection_loss(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => {
            matches!(database.code().as_deref(), Some("57P01" | "57P02" | "57P05" | "08006"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_mean_the_same() {
        for (kind, code, expected) in [
            (ErrorKind::UniqueViolation, "23505", Some((Code::AlreadyExists, UNIQUE_VIOLATION))),
            (ErrorKind::UniqueViolation, "2067", Some((Code::AlreadyExists, UNIQUE_VIOLATION))),
            (
                ErrorKind::ForeignKeyViolation,
                "787",
                Some((Code::FailedPrecondition, "FOREIGN_KEY_VIOLATION")),
            ),
            (ErrorKind::Other, "40001", Some((Code::Aborted, SERIALIZATION_FAILURE))),
            (ErrorKind::Other, "40P01", Some((Code::Aborted, DEADLOCK))),
            (ErrorKind::Other, "5", Some((Code::Aborted, LOCK_TIMEOUT))),
            // SQLITE_BUSY_SNAPSHOT and SQLITE_LOCKED_SHAREDCACHE keep their primary code.
            (ErrorKind::Other, "517", Some((Code::Aborted, LOCK_TIMEOUT))),
            (ErrorKind::Other, "262", Some((Code::Aborted, LOCK_TIMEOUT))),
            (ErrorKind::Other, "57014", Some((Code::DeadlineExceeded, "STATEMENT_TIMEOUT"))),
            (ErrorKind::Other, "57P01", Some((Code::Unavailable, "DATABASE_UNAVAILABLE"))),
            (ErrorKind::Other, "53300", Some((Code::Unavailable, "DATABASE_UNAVAILABLE"))),
            (ErrorKind::Other, "13", Some((Code::Unavailable, "DISK_FULL"))),
            (ErrorKind::Other, "42P01", None),
            (ErrorKind::Other, "1", None),
        ] {
            let meaning = classify(&kind, Some(code)).map(|(code, reason, _)| (code, reason));
            assert_eq!(meaning, expected, "{code}");
        }
    }

    #[test]
    fn the_database_s_words_stay_private() {
        let error = map_error(sqlx::Error::Io(std::io::Error::other("10.0.0.7 refused")));
        assert_eq!(error.to_string(), "the database is not available");
        assert!(error.chain().contains("10.0.0.7 refused"));
        assert!(map_error(sqlx::Error::PoolTimedOut).was_not_sent());
    }
}
