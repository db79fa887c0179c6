//! A pool of connections to one database.
//!
//! On SQLite everything that may write takes its turn first and a connection second, so
//! that writers who wait hold nothing that readers need.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use chassis_core::{BoxFuture, Context, Error, Metrics, Probe, Result};
use sqlx::{
    Any, AssertSqlSafe, Connection, Pool, SqlSafeStr, SqlStr,
    pool::{PoolConnection, PoolOptions},
};
use tokio::time::{Instant, sleep};

use crate::{
    Backend, DatabaseConfig, Dialect, Migrations, Row, Tx, Value,
    backend::Options,
    connect::patiently,
    location::Location,
    map_error,
    metrics::PoolMetrics,
    probe::DbProbe,
    retry, session, tx,
    writer::{Turn, Writer, is_read},
};

/// A connection that was idle for longer is asked whether it lives before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// Longest wait to open a new connection for a migration.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);

/// Runs the work in transactions until one is committed or fails for good.
///
/// A macro, because no one bound on the work fits both an async closure and a boxed future.
macro_rules! until_settled {
    ($db:expr, $work:expr) => {{
        let mut attempt = 1;
        loop {
            let result = match $db.begin().await {
                Ok(mut tx) => {
                    let result = $work(&mut tx).await;
                    tx::settle(tx, result).await
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(value) => break Ok(value),
                Err(error) => $db.back_off(attempt, error).await?,
            }
            attempt += 1;
        }
    }};
}

/// A database. Cheap to clone; all clones share one pool.
///
/// A task that holds a [`Tx`] must not write to the same SQLite database outside of it: it
/// would wait for itself until the acquire timeout.
pub struct Db<B: Backend = Any>(Arc<Inner<B>>);

struct Inner<B: Backend> {
    pool: Pool<B>,
    options: Options<B>,
    location: Location,
    setup: String,
    acquire_timeout: Duration,
    writer: Option<Writer>,
    metrics: OnceLock<PoolMetrics>,
}

impl<B: Backend> Clone for Db<B> {
    fn clone(&self) -> Db<B> {
        Db(Arc::clone(&self.0))
    }
}

impl<B: Backend> Db<B> {
    /// Opens a database: creates the file on SQLite, waits for the server on PostgreSQL.
    ///
    /// Returns once one connection has worked. Dropping the future gives up.
    ///
    /// # Errors
    /// An error fit to be shown to whoever starts the process: an unreadable URL, a folder
    /// that cannot be written (with its path), a database that does not exist, a refused
    /// login, or no answer within `connect_timeout`.
    pub async fn connect(config: &DatabaseConfig) -> Result<Db<B>> {
        sqlx::any::install_default_drivers();
        let url = config.url.expose().to_owned();
        let location = tokio::task::spawn_blocking(move || Location::prepare(&url))
            .await
            .map_err(Error::internal)??;
        let scheme = location.url.split(':').next().unwrap_or_default();
        if !B::schemes().contains(&scheme) {
            let message = format!("{location} cannot be opened as {}", B::NAME);
            return Err(Error::invalid_argument("DATABASE_URL_INVALID", message));
        }
        let options: Options<B> = location.url.parse().map_err(map_error)?;
        let setup = session::setup(&location, config);
        // A new file has one path only once it exists, so the queue is looked up after that.
        let first = first_connection::<B>(&location, config, &options, &setup).await?;
        let writer = location.file.as_deref().map(Writer::of);
        first.close().await.map_err(map_error)?;
        let pool = pool_options::<B>(config, &setup).connect_lazy_with(options.clone());
        tracing::debug!(database = %location, "database opened");
        Ok(Db(Arc::new(Inner {
            pool,
            options,
            location,
            setup,
            acquire_timeout: config.acquire_timeout,
            writer,
            metrics: OnceLock::new(),
        })))
    }

    /// Which SQL this database speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.0.location.dialect
    }

    /// The pool, for what only sqlx can do.
    ///
    /// Do not `begin` on it in a future that may be dropped (sqlx 0.9 then returns the
    /// connection to the pool inside a transaction), and do not write to SQLite through it.
    #[must_use]
    pub fn pool(&self) -> &Pool<B> {
        &self.0.pool
    }

    /// Brings one set of tables up to date. See [`Migrations`].
    ///
    /// Uses a connection of its own, without the statement timeout. Several processes may
    /// call it at once; one works and the others wait. Dropping the future rolls back the
    /// step that is running; finished steps stay.
    ///
    /// # Errors
    /// A step that fails, a step that was changed after it had been applied, or a lock that
    /// another process holds for more than a minute.
    pub async fn migrate(&self, migrations: &Migrations) -> Result<()> {
        let migrator = migrations.migrator(self.dialect())?;
        let _turn = self.turn(MIGRATION_WAIT).await?;
        let explain = |error| migrations.explain(error);
        let mut conn = B::Connection::connect_with(&self.0.options).await.map_err(map_error)?;
        B::batch(&mut conn, sql(&self.0.setup)).await.map_err(map_error)?;
        match self.dialect() {
            // sqlx takes an advisory lock and runs each step in a transaction.
            Dialect::Postgres => {
                B::batch(&mut conn, sql(session::MIGRATING)).await.map_err(map_error)?;
                migrator.run_direct(None, &mut conn, false).await.map_err(explain)?;
            }
            // sqlx has no lock for SQLite, so the whole set is one write transaction, and
            // each step a savepoint in it.
            Dialect::Sqlite => {
                let begin = sql("begin immediate");
                let mut tx = conn.begin_with(begin).await.map_err(map_error)?;
                migrator.run_direct(None, &mut *tx, false).await.map_err(explain)?;
                tx.commit().await.map_err(map_error)?;
            }
        }
        conn.close().await.map_err(map_error)
    }

    /// Begins a transaction; on SQLite it is one that may write, and waits for its turn.
    ///
    /// Dropping the future leaves no transaction open. Prefer [`Db::transaction`], which
    /// also repeats what lost a conflict.
    ///
    /// # Errors
    /// `Unavailable` when no connection, or on SQLite no turn, came within `acquire_timeout`.
    pub async fn begin(&self) -> Result<Tx<B>> {
        let turn = self.turn(self.0.acquire_timeout).await?;
        tx::begin(self, turn).await
    }

    /// Runs `work` in a transaction and commits it; rolls back if `work` fails.
    ///
    /// A conflict with another transaction (serialisation failure, deadlock, busy SQLite)
    /// runs `work` again, up to five times in all, with growing pauses, and not past the
    /// ambient deadline. So `work` must have no effect but in the transaction; what should
    /// follow a commit goes into [`Tx::on_commit`]. Dropping the future rolls back, unless
    /// the commit has begun, which then ends.
    ///
    /// ```
    /// # use chassis_core::Result;
    /// # use chassis_data::{Db, params};
    /// # async fn rename(db: &Db, id: i64, name: String) -> Result<u64> {
    /// db.transaction(async |tx| {
    ///     tx.execute("update item set name = $1 where id = $2", params![&name, id]).await
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of `work`, of beginning, or of committing.
    pub async fn transaction<T, F>(&self, work: F) -> Result<T>
    where
        F: AsyncFn(&mut Tx<B>) -> Result<T>,
    {
        until_settled!(self, work)
    }

    /// [`transaction`](Self::transaction) for code that is generic over the work.
    ///
    /// There the compiler cannot see that the future of an async closure may move between
    /// threads; a boxed one says so.
    ///
    /// ```
    /// # use chassis_core::{BoxFuture, Result};
    /// # use chassis_data::{Backend, Db, Tx, params};
    /// fn insert<B: Backend>(db: &Db<B>, id: String) -> BoxFuture<'_, Result<u64>> {
    ///     db.transaction_boxed(move |tx| {
    ///         let insert = tx.execute("insert into item (id) values ($1)", params![&id]);
    ///         Box::pin(insert)
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// That of `work`, of beginning, or of committing.
    pub fn transaction_boxed<'d, T, F>(&'d self, work: F) -> BoxFuture<'d, Result<T>>
    where
        T: Send + 'd,
        F: for<'a> Fn(&'a mut Tx<B>) -> BoxFuture<'a, Result<T>> + Send + Sync + 'd,
    {
        Box::pin(async move { until_settled!(self, work) })
    }

    /// Waits before the work runs again, or gives the error back if it should not.
    async fn back_off(&self, attempt: u32, error: Error) -> Result<()> {
        let deadline = Context::try_current().and_then(|context| context.deadline());
        let time_left = deadline.map(|deadline| deadline.remaining());
        let Some(pause) = retry::next(attempt, &error, fastrand::f64(), time_left) else {
            return Err(error);
        };
        tracing::debug!(attempt, reason = error.reason(), "the transaction runs again");
        if let Some(metrics) = self.0.metrics.get() {
            metrics.retries.inc();
        }
        sleep(pause).await;
        Ok(())
    }

    /// Runs one statement outside a transaction, and gives the number of rows it changed.
    ///
    /// Dropping the future stops waiting; the statement may still take effect.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says.
    pub fn execute(&self, sql: impl SqlSafeStr, params: Vec<Value>) -> BoxFuture<'_, Result<u64>> {
        let sql = sql.into_sql_str();
        Box::pin(async move {
            let _turn = self.turn(self.0.acquire_timeout).await?;
            let mut conn = self.acquire().await?;
            B::execute(&mut conn, sql, params).await.map_err(map_error)
        })
    }

    /// Runs one query outside a transaction, and gives all rows. Bound their number in SQL.
    ///
    /// Dropping the future stops waiting; a statement that writes may still take effect.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says.
    pub fn fetch_all(
        &self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, Result<Vec<Row>>> {
        let sql = sql.into_sql_str();
        Box::pin(async move {
            let _turn = self.turn_for(&sql).await?;
            let mut conn = self.acquire().await?;
            B::fetch_all(&mut conn, sql, params).await.map_err(map_error)
        })
    }

    /// Runs one query outside a transaction, and gives the first row if there is one.
    ///
    /// Dropping the future stops waiting; a statement that writes may still take effect.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says.
    pub fn fetch_optional(
        &self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, Result<Option<Row>>> {
        let sql = sql.into_sql_str();
        Box::pin(async move {
            let _turn = self.turn_for(&sql).await?;
            let mut conn = self.acquire().await?;
            B::fetch_optional(&mut conn, sql, params).await.map_err(map_error)
        })
    }

    /// A probe that asks the database for one row, and refreshes the pool's gauges.
    #[must_use]
    pub fn probe(&self) -> impl Probe + use<B> {
        DbProbe(self.clone())
    }

    /// Shows this pool under this name from now on. The first call counts.
    pub fn bind_metrics(&self, metrics: &Metrics, pool: &str) {
        self.0.metrics.get_or_init(|| PoolMetrics::new(metrics, pool));
        self.refresh_metrics();
    }

    /// Closes the pool: waits for connections in use to come back, and lets no new ones out.
    ///
    /// Dropping the future leaves the pool closed and the rest to happen by itself.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }

    pub(crate) fn refresh_metrics(&self) {
        if let Some(metrics) = self.0.metrics.get() {
            metrics.refresh(&self.0.pool);
        }
    }

    /// A connection, within the acquire timeout.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<B>> {
        let start = Instant::now();
        let acquired = self.0.pool.acquire().await.map_err(map_error);
        if let Some(metrics) = self.0.metrics.get() {
            metrics.wait.observe(start.elapsed().as_secs_f64());
            metrics.refresh(&self.0.pool);
        }
        acquired
    }

    /// The turn to write; none is needed on PostgreSQL.
    async fn turn(&self, wait: Duration) -> Result<Option<Turn>> {
        match &self.0.writer {
            Some(writer) => writer.turn(wait).await.map(Some),
            None => Ok(None),
        }
    }

    async fn turn_for(&self, sql: &SqlStr) -> Result<Option<Turn>> {
        if is_read(sql.as_str()) { Ok(None) } else { self.turn(self.0.acquire_timeout).await }
    }
}

/// Connects once, which shows whether the settings work and switches SQLite's journal mode.
async fn first_connection<B: Backend>(
    location: &Location,
    config: &DatabaseConfig,
    options: &Options<B>,
    setup: &str,
) -> Result<B::Connection> {
    let _turn = match location.file.as_deref().map(Writer::of) {
        Some(writer) => Some(writer.turn(config.connect_timeout).await?),
        None => None,
    };
    patiently(location, config.connect_timeout, || async {
        let mut conn = B::Connection::connect_with(options).await?;
        B::batch(&mut conn, sql(setup)).await?;
        Ok(conn)
    })
    .await
}

fn pool_options<B: Backend>(config: &DatabaseConfig, setup: &str) -> PoolOptions<B> {
    let setup: Arc<str> = setup.into();
    PoolOptions::new()
        .max_connections(config.max_connections.max(1))
        .acquire_timeout(config.acquire_timeout)
        .after_connect(move |conn, _| {
            let setup = AssertSqlSafe(Arc::clone(&setup)).into_sql_str();
            Box::pin(B::batch(conn, setup))
        })
        // In place of sqlx's own test, which costs a round trip every time.
        .test_before_acquire(false)
        .before_acquire(|conn: &mut B::Connection, meta| {
            Box::pin(async move {
                // A failed rollback would otherwise leave the next user in a transaction.
                if conn.is_in_transaction() {
                    return Ok(false);
                }
                if meta.idle_for > TRUSTED_IDLE {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Our own text: settings and nothing from outside.
fn sql(text: &str) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}
