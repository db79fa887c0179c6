//! Databases for services: one database per service, PostgreSQL or SQLite, one code for both.
//!
//! A [`Db`] is a pool with the settings that a service should have and seldom has: timeouts
//! everywhere, write-ahead logging and immediate write transactions on SQLite, bounded
//! patience with a server that is not up yet. A [`Tx`] is a transaction that survives its
//! caller: a handler that a timeout drops in the middle leaves no transaction open, and a
//! commit that has begun ends.
//!
//! [`Backend`] is implemented for `sqlx::Postgres`, `sqlx::Sqlite` and `sqlx::Any`. A service
//! that wants the full power of one database uses that one, and reaches sqlx by
//! [`Db::pool`] and [`Tx::conn`]. Code that must run on both uses `Any` (the default) or is
//! generic over the backend, and keeps to what both understand:
//!
//! | | portable |
//! |---|---|
//! | column types | `text`, `bigint`, and `{blob}` in migrations |
//! | placeholders | `$1`, `$2`, … |
//! | upsert | `on conflict … do nothing` / `do update` |
//! | answers | `returning` |
//! | numbers from functions | `cast(… as bigint)`: PostgreSQL sums to `numeric` |
//!
//! A statement must always be given parameters of the same types: PostgreSQL keeps the
//! prepared form of each SQL text.
//!
//! Read in this order:
//!
//! 1. [`config`], [`db`], [`tx`]: connect, ask, change.
//! 2. [`value`], [`row`], [`dialect`]: what goes in and what comes out.
//! 3. [`migrations`]: tables, in sets that do not know each other.
//! 4. [`error`](mod@error): what a database failure means to a caller.
//! 5. [`backend`]: the three databases behind one trait.
//! 6. [`tokens`]: a rate limit that instances share.
//! 7. [`create`]: makes a PostgreSQL database where a developer has none yet.

pub mod backend;
pub mod config;
mod connect;
pub mod create;
pub mod db;
pub mod dialect;
pub mod error;
mod location;
mod metrics;
pub mod migrations;
mod probe;
mod retry;
pub mod row;
mod session;
pub mod tokens;
pub mod tx;
pub mod value;
mod writer;

pub use backend::Backend;
pub use config::DatabaseConfig;
pub use create::create_database_if_missing;
pub use db::Db;
pub use dialect::Dialect;
pub use error::map_error;
pub use migrations::Migrations;
pub use row::Row;
pub use tokens::DbTokenStore;
pub use tx::Tx;
pub use value::Value;
