//! Settings of a database connection pool.

use std::time::Duration;

use chassis_core::{Secret, config::duration};
use serde::{Deserialize, Serialize};

/// Where the database is, and the bounds on using it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `sqlite://<file>` or `postgres://<user>:<password>@<host>/<database>`. Empty: the
    /// service decides.
    pub url: Secret,
    /// Most connections open at once. Each is a process on PostgreSQL, a thread on SQLite.
    pub max_connections: u32,
    /// Longest wait for a free connection, and on SQLite for the turn to write.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// Longest wait at start-up for a server that does not answer yet.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// PostgreSQL ends a statement that runs longer. Zero: no limit.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// PostgreSQL ends a transaction in which nothing happens for longer. Zero: no limit.
    #[serde(with = "duration")]
    pub idle_in_transaction_timeout: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> DatabaseConfig {
        DatabaseConfig {
            url: Secret::new(""),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction_timeout: Duration::from_secs(60),
        }
    }
}

impl DatabaseConfig {
    /// The defaults with this URL.
    #[must_use]
    pub fn url(url: impl Into<String>) -> DatabaseConfig {
        DatabaseConfig { url: Secret::new(url.into()), ..DatabaseConfig::default() }
    }
}
