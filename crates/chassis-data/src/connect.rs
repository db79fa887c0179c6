//! Bounded patience with a database that is not up yet.
//!
//! In a fresh deployment the service and its database start together, and whoever is first
//! must wait. What will not get better by waiting, a wrong password or a missing database,
//! fails at once and says what to do.

use std::{future::Future, time::Duration};

use chassis_core::{Error, Result, error::chain};
use tokio::time::{Instant, sleep, timeout_at};

use crate::location::{Location, unusable};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tries until it works, cannot work, or the time is over. Dropping the future stops trying.
pub(crate) async fn patiently<T, F, Fut>(
    location: &Location,
    patience: Duration,
    mut attempt: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = sqlx::Result<T>>,
{
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match timeout_at(end, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(elapsed) => return Err(unreachable(location, patience).with_source(elapsed)),
        };
        if let Some(failure) = hopeless(location, &error) {
            return Err(failure.with_source(error));
        }
        if Instant::now() + pause >= end {
            return Err(unreachable(location, patience).with_source(error));
        }
        tracing::warn!(
            database = %location,
            error = %chain(&error),
            retry_in_ms = pause.as_millis() as u64,
            "the database does not answer yet"
        );
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The failure to report where waiting does not help.
fn hopeless(location: &Location, error: &sqlx::Error) -> Option<Error> {
    match error {
        sqlx::Error::Io(_) => None,
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // Starting up or shutting down, too many clients, or SQLite busy.
            Some("57P03" | "57P01" | "53300" | "5" | "261") => None,
            Some("3D000") => Some(Error::failed_precondition(
                "DATABASE_MISSING",
                format!("{location} does not exist: create it with createdb"),
            )),
            Some("28P01" | "28000") => Some(Error::failed_precondition(
                "DATABASE_LOGIN_REFUSED",
                format!("{location} refused the login: check user and password in DATABASE_URL"),
            )),
            // Cannot open, read-only, not a database.
            Some("14" | "8" | "26") => Some(unusable(&location.name)),
            _ => Some(failed(location)),
        },
        _ => Some(failed(location)),
    }
}

fn failed(location: &Location) -> Error {
    Error::failed_precondition("DATABASE_UNUSABLE", format!("{location} cannot be opened"))
}

fn unreachable(location: &Location, patience: Duration) -> Error {
    Error::unavailable(
        "DATABASE_UNREACHABLE",
        format!("{location} did not answer within {patience:?}: is it running?"),
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn location() -> Location {
        Location::prepare("postgres://u:p@db/items").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_server_that_comes_up() {
        let mut attempts = 0;
        let answer = patiently(&location(), Duration::from_secs(30), || {
            attempts += 1;
            let up = attempts == 4;
            async move { if up { Ok(7) } else { Err(io::Error::other("refused").into()) } }
        })
        .await;
        assert_eq!(answer.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn its_patience_ends_even_when_an_attempt_hangs() {
        let patience = Duration::from_secs(30);
        let location = location();
        let refused = patiently(&location, patience, || async {
            sqlx::Result::<()>::Err(io::Error::other("refused").into())
        });
        let hangs = patiently(&location, patience, std::future::pending::<sqlx::Result<()>>);
        for error in [refused.await.unwrap_err(), hangs.await.unwrap_err()] {
            assert_eq!(error.reason(), "DATABASE_UNREACHABLE");
            assert!(error.message().contains("items"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_get_better_fails_at_once() {
        let start = Instant::now();
        let location = location();
        let wrong = patiently(&location, Duration::from_secs(30), || async {
            sqlx::Result::<()>::Err(sqlx::Error::Protocol("not PostgreSQL".into()))
        });
        assert_eq!(wrong.await.unwrap_err().reason(), "DATABASE_UNUSABLE");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
