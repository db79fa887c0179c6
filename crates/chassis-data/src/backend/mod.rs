//! One small trait over three kinds of sqlx connection.
//!
//! sqlx is generic over the database, but its executors are only implemented for concrete
//! ones, so code that is generic over the backend cannot run a query. This trait closes the
//! gap with three functions; each implementation is the same few lines over a concrete type.

mod any;
mod postgres;
mod sqlite;

use chassis_core::BoxFuture;
use sqlx::{Connection, Database, SqlStr, migrate::Migrate};

use crate::{Row, Value};

/// The connect options of a backend.
pub(crate) type Options<B> = <<B as Database>::Connection as Connection>::Options;

pub(crate) mod sealed {
    /// Only this crate knows what a backend must do.
    pub trait Sealed {}
}

/// A database that a [`Db`](crate::Db) can be opened on.
///
/// The functions run on one connection. Dropping a future stops waiting for the answer; the
/// statement may still run to its end.
pub trait Backend: Database<Connection: Migrate> + sealed::Sealed {
    /// The URL schemes that this backend opens.
    #[doc(hidden)]
    fn schemes() -> &'static [&'static str];

    /// Runs a statement, and gives the number of rows that it changed.
    #[doc(hidden)]
    fn execute(
        conn: &mut Self::Connection,
        sql: SqlStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, sqlx::Result<u64>>;

    /// Runs a query, and gives all rows.
    #[doc(hidden)]
    fn fetch_all(
        conn: &mut Self::Connection,
        sql: SqlStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, sqlx::Result<Vec<Row>>>;

    /// Runs a query, and gives the first row if there is one.
    #[doc(hidden)]
    fn fetch_optional(
        conn: &mut Self::Connection,
        sql: SqlStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, sqlx::Result<Option<Row>>>;

    /// Runs several statements without parameters.
    #[doc(hidden)]
    fn batch(conn: &mut Self::Connection, sql: SqlStr) -> BoxFuture<'_, sqlx::Result<()>>;
}

/// Implements [`Backend`] for a concrete database, given how to decode one of its rows.
macro_rules! backend {
    ($database:ty, $schemes:expr, $decode:path) => {
        impl $crate::backend::sealed::Sealed for $database {}

        impl $crate::Backend for $database {
            fn schemes() -> &'static [&'static str] {
                $schemes
            }

            fn execute(
                conn: &mut Self::Connection,
                sql: ::sqlx::SqlStr,
                params: Vec<$crate::Value>,
            ) -> ::chassis_core::BoxFuture<'_, ::sqlx::Result<u64>> {
                Box::pin(async move {
                    Ok(backend!(query $database, sql, params).execute(conn).await?.rows_affected())
                })
            }

            fn fetch_all(
                conn: &mut Self::Connection,
                sql: ::sqlx::SqlStr,
                params: Vec<$crate::Value>,
            ) -> ::chassis_core::BoxFuture<'_, ::sqlx::Result<Vec<$crate::Row>>> {
                Box::pin(async move {
                    let rows = backend!(query $database, sql, params).fetch_all(conn).await?;
                    rows.iter().map($decode).collect()
                })
            }

            fn fetch_optional(
                conn: &mut Self::Connection,
                sql: ::sqlx::SqlStr,
                params: Vec<$crate::Value>,
            ) -> ::chassis_core::BoxFuture<'_, ::sqlx::Result<Option<$crate::Row>>> {
                Box::pin(async move {
                    let row = backend!(query $database, sql, params).fetch_optional(conn).await?;
                    row.as_ref().map($decode).transpose()
                })
            }

            fn batch(
                conn: &mut Self::Connection,
                sql: ::sqlx::SqlStr,
            ) -> ::chassis_core::BoxFuture<'_, ::sqlx::Result<()>> {
                Box::pin(async move {
                    ::sqlx::raw_sql(sql).execute(conn).await?;
                    Ok(())
                })
            }
        }
    };
    (query $database:ty, $sql:expr, $params:expr) => {{
        let mut query = ::sqlx::query::<$database>($sql);
        for param in $params {
            query = match param {
                $crate::Value::Text(text) => query.bind(text),
                $crate::Value::Int(number) => query.bind(number),
                $crate::Value::Blob(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}
use backend;

/// A column whose type is not among the portable ones.
#[derive(Debug)]
struct UnportableType(String);

impl std::fmt::Display for UnportableType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "type {} is not portable: cast it to text, bigint or bytes", self.0)
    }
}

impl std::error::Error for UnportableType {}

fn unportable(index: usize, type_name: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: index.to_string(),
        source: Box::new(UnportableType(type_name.to_owned())),
    }
}
