//! A transaction that survives its caller.
//!
//! A handler is a future, and a timeout or a vanished client drops it anywhere. sqlx 0.9 does
//! not mind while a statement runs, but a `begin` that is dropped before its answer returns
//! its connection to the pool inside a transaction, and a `commit` that is dropped leaves
//! nobody who knows the outcome. So both run in a task of their own: what has begun ends.
//!
//! After a statement has failed, PostgreSQL refuses all further ones, and answers `COMMIT`
//! with a silent rollback. SQLite goes on as if nothing had happened. Here both refuse, and
//! the commit says so; what may fail in normal operation is written so that it does not
//! (`on conflict do nothing`).

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use chassis_core::{BoxFuture, Code, Context, Error, Result};
use sqlx::{Any, SqlSafeStr, Transaction};
use tokio::task::JoinError;

use crate::{
    Backend, Db, Dialect, Row, Value,
    error::{COMMIT_UNKNOWN, is_connection_loss},
    map_error,
    writer::Turn,
};

type Hook = Box<dyn FnOnce() + Send>;

/// An open transaction. Dropping it rolls it back.
pub struct Tx<B: Backend = Any> {
    // Before the turn: the rollback is on its way before the next writer starts.
    inner: Transaction<'static, B>,
    turn: Option<Turn>,
    dialect: Dialect,
    /// Set while a statement runs, and for good if it fails or is dropped.
    broken: bool,
    /// Whether statements were run that this type did not see.
    unseen: bool,
    on_commit: Vec<Hook>,
}

/// Begins a transaction for someone whose turn it is.
///
/// A connection that turns out to be dead is replaced: nothing has happened yet. Each dead
/// one leaves the pool, so the number of attempts is bounded by the size of the pool.
pub(crate) async fn begin<B: Backend>(db: &Db<B>, turn: Option<Turn>) -> Result<Tx<B>> {
    let dialect = db.dialect();
    let statement = match dialect {
        Dialect::Sqlite => "begin immediate",
        Dialect::Postgres => "begin",
    };
    let mut turn = turn;
    let mut spare = db.pool().options().get_max_connections();
    loop {
        let conn = db.acquire().await?;
        // The turn goes along, so that it ends after the transaction if nobody waits any more.
        let begun = tokio::spawn(async move {
            (Transaction::<'static, B>::begin(conn, Some(statement.into_sql_str())).await, turn)
        });
        let (result, returned) = begun.await.map_err(task_failed)?;
        turn = returned;
        match result {
            Ok(inner) => {
                let on_commit = Vec::new();
                return Ok(Tx { inner, turn, dialect, broken: false, unseen: false, on_commit });
            }
            Err(error) if is_connection_loss(&error) && spare > 0 => spare -= 1,
            Err(error) => return Err(map_error(error)),
        }
    }
}

/// Commits what worked and rolls back what did not.
pub(crate) async fn settle<B: Backend, T>(tx: Tx<B>, result: Result<T>) -> Result<T> {
    match result {
        Ok(value) => {
            tx.commit().await?;
            Ok(value)
        }
        Err(error) => {
            tx.rollback().await;
            Err(error)
        }
    }
}

/// Runs one statement unless the transaction is broken, and marks it broken unless it works.
macro_rules! run {
    ($self:ident, $function:ident, $sql:ident, $params:ident) => {{
        let sql = $sql.into_sql_str();
        Box::pin(async move {
            if $self.broken {
                return Err(Error::internal(Broken));
            }
            $self.broken = true;
            let answer = B::$function(&mut $self.inner, sql, $params).await.map_err(map_error)?;
            $self.broken = false;
            Ok(answer)
        })
    }};
}

impl<B: Backend> Tx<B> {
    /// Runs one statement, and gives the number of rows that it changed.
    ///
    /// Dropping the future breaks the transaction, as a failure does: it can only be rolled
    /// back then.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says; `Internal` if an earlier statement failed.
    pub fn execute(
        &mut self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, Result<u64>> {
        run!(self, execute, sql, params)
    }

    /// Runs one query, and gives all rows. Bound their number in SQL.
    ///
    /// Dropping the future breaks the transaction, as a failure does.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says; `Internal` if an earlier statement failed.
    pub fn fetch_all(
        &mut self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, Result<Vec<Row>>> {
        run!(self, fetch_all, sql, params)
    }

    /// Runs one query, and gives the first row if there is one.
    ///
    /// Dropping the future breaks the transaction, as a failure does.
    ///
    /// # Errors
    /// As [`map_error`](crate::map_error()) says; `Internal` if an earlier statement failed.
    pub fn fetch_optional(
        &mut self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
    ) -> BoxFuture<'_, Result<Option<Row>>> {
        run!(self, fetch_optional, sql, params)
    }

    /// The connection, for what only sqlx can do. Do not end the transaction on it.
    ///
    /// On PostgreSQL the commit then costs one more round trip, which finds out whether a
    /// statement failed here.
    pub fn conn(&mut self) -> &mut B::Connection {
        self.unseen = true;
        &mut self.inner
    }

    /// Which SQL this database speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Runs `hook` right after the commit, in the order of the calls; never if it fails.
    ///
    /// For what makes others look: wake a relay, drop a cache entry. It must not block, and
    /// it is no place for work that must not be lost, since the process may end before.
    pub fn on_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.on_commit.push(Box::new(hook));
    }

    /// Commits. Dropping the future does not stop it: it ends, and its hooks run.
    ///
    /// # Errors
    /// `Aborted` for a conflict, after which the whole transaction may be run again;
    /// `Unknown` with [`COMMIT_UNKNOWN`] if the connection broke before the answer came;
    /// `Internal` if a statement failed or was dropped earlier. But for `COMMIT_UNKNOWN`,
    /// nothing was committed.
    pub async fn commit(mut self) -> Result<()> {
        if self.unseen && !self.broken && self.dialect == Dialect::Postgres {
            self.execute("select 1", Vec::new()).await.map_err(|_| Error::internal(Broken))?;
        }
        if self.broken {
            self.rollback().await;
            return Err(Error::internal(Broken));
        }
        let Tx { inner, turn, on_commit, .. } = self;
        in_own_task(async move {
            let result = inner.commit().await;
            drop(turn);
            result.map_err(commit_failed)?;
            on_commit.into_iter().for_each(run_hook);
            Ok(())
        })
        .await?
    }

    /// Rolls back now, and returns once that is done. Dropping the future does not stop it.
    pub async fn rollback(self) {
        let Tx { inner, turn, .. } = self;
        let done = in_own_task(async move {
            let result = inner.rollback().await;
            drop(turn);
            result
        });
        // There is nothing left to save: without a connection the server rolls back itself.
        if let Ok(Err(error)) = done.await {
            tracing::debug!(%error, "rollback failed; the connection is given up");
        }
    }
}

/// Runs to the end even if nobody waits, in the same context.
async fn in_own_task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let task = match Context::try_current() {
        Some(context) => tokio::spawn(context.scope(work)),
        None => tokio::spawn(work),
    };
    task.await.map_err(task_failed)
}

fn run_hook(hook: Hook) {
    // The data are committed; a hook that panics must not make it look otherwise.
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        tracing::error!("an on_commit hook panicked");
    }
}

fn commit_failed(error: sqlx::Error) -> Error {
    if is_connection_loss(&error) {
        let message = "it is not known whether the change was stored";
        return Error::new(Code::Unknown, COMMIT_UNKNOWN, message).with_source(error);
    }
    map_error(error)
}

/// The runtime is shutting down, or there is a bug below.
fn task_failed(error: JoinError) -> Error {
    if error.is_cancelled() {
        let message = "the process is shutting down";
        return Error::unavailable("SHUTTING_DOWN", message).with_source(error);
    }
    Error::internal(error)
}

/// A statement failed or was dropped earlier in the transaction.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an earlier statement of this transaction failed or was dropped; nothing is committed",
        )
    }
}

impl std::error::Error for Broken {}
