//! Makes the PostgreSQL database that a URL names.
//!
//! Production databases are made by whoever runs the server. A developer, a test or an
//! example system wants one per service without a step by hand.

use std::time::Duration;

use chassis_core::{Error, Result};
use sqlx::{Postgres, migrate::MigrateDatabase};

use crate::{Dialect, connect::patiently, location::Location, map_error};

/// How long to wait for the server.
const PATIENCE: Duration = Duration::from_secs(30);

/// Creates the database of a URL if it does not exist, and says whether it did.
///
/// On PostgreSQL the login of the URL must be allowed to create databases; a server that is
/// not up yet is waited for, at most 30 seconds. On SQLite only the folder is created: the
/// file comes with the first connection. Several callers at once are fine. Dropping the
/// future may leave the database created.
///
/// # Errors
/// When the URL cannot be read, the server is not reachable, or the login is refused.
pub async fn create_database_if_missing(url: &str) -> Result<bool> {
    let location = Location::prepare(url)?;
    if location.dialect == Dialect::Sqlite {
        return Ok(false);
    }
    let exists = || Postgres::database_exists(&location.url);
    if patiently(&location, PATIENCE, exists).await? {
        return Ok(false);
    }
    match Postgres::create_database(&location.url).await {
        Ok(()) => Ok(true),
        // Somebody else was faster; with bad luck the catalogue's own index says so.
        Err(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("42P04" | "23505")) =>
        {
            Ok(false)
        }
        Err(error) => Err(Error::failed_precondition(
            "DATABASE_NOT_CREATED",
            format!("{location} does not exist and could not be created"),
        )
        .with_source(map_error(error))),
    }
}
