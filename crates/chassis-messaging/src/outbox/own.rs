//! A connection of the relay's own, set up for what it does.
//!
//! PostgreSQL keeps the plan of a prepared statement. One made while the table was
//! empty walks over all rows, and would go on doing so when there are a million
//! (seen: a relay ten times slower from one start to the next). So the relay's
//! statements run on connections that never walk over a whole table. They are taken
//! out of the service's pool, which has the right address and settings, so a pool
//! that runs dry does not stop the relay either. On SQLite nothing of this is needed.

use chassis_core::Result;
use chassis_data::{Backend, Db, Dialect, Row, Value, map_error};
use sqlx::SqlSafeStr;
use tokio::sync::Mutex;

/// For reads: one statement, whose only good plan is an index scan. It is not compiled
/// (`jit`): the planner does that where it expects many rows, as it does of a large table,
/// and it takes a tenth of a second, each time.
pub(crate) const READS: &str =
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;";

/// For marks and the clean-up: each planned for the table as it is. Never by a bitmap: of a
/// table that was small a moment ago the planner believes that all pending rows are fewer than
/// those to be marked, and looks at each of them, a hundred thousand at a time (seen: a
/// mark at three times its cost). A crash of the server may lose the last marks; then those rows
/// are published once more under the same ids, as after a crash of the relay.
pub(crate) const WRITES: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET plan_cache_mode = force_custom_plan; SET synchronous_commit = off; SET jit = off;";

/// A connection that is made when it is first used, and again after a failure.
pub(crate) struct Own<B: Backend> {
    db: Db<B>,
    /// `None`: whichever of the pool is free.
    settings: Option<&'static str>,
    connection: Mutex<Option<B::Connection>>,
}

impl<B: Backend> Own<B> {
    pub(crate) fn new(db: Db<B>, settings: Option<&'static str>) -> Self {
        let settings = settings.filter(|_| db.dialect() == Dialect::Postgres);
        Self { db, settings, connection: Mutex::new(None) }
    }

    pub(crate) async fn fetch_all(
        &self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>> {
        let Some(settings) = self.settings else { return self.db.fetch_all(sql, params).await };
        let mut kept = self.connection.lock().await;
        let mut connection = self.take(&mut kept, settings).await?;
        let rows = B::fetch_all(&mut connection, sql.into_sql_str(), params).await;
        let rows = rows.map_err(map_error)?;
        *kept = Some(connection);
        Ok(rows)
    }

    pub(crate) async fn execute(&self, sql: &'static str, params: Vec<Value>) -> Result<u64> {
        let Some(settings) = self.settings else { return self.db.execute(sql, params).await };
        let mut kept = self.connection.lock().await;
        let mut connection = self.take(&mut kept, settings).await?;
        let changed = B::execute(&mut connection, sql.into_sql_str(), params).await;
        let changed = changed.map_err(map_error)?;
        *kept = Some(connection);
        Ok(changed)
    }

    /// The connection; whoever fails or is dropped with it does not put it back.
    async fn take(
        &self,
        kept: &mut Option<B::Connection>,
        settings: &'static str,
    ) -> Result<B::Connection> {
        if let Some(connection) = kept.take() {
            return Ok(connection);
        }
        let pooled = self.db.pool().acquire().await.map_err(map_error)?;
        let mut connection = pooled.detach();
        B::batch(&mut connection, settings.into_sql_str()).await.map_err(map_error)?;
        Ok(connection)
    }
}
