//! What is asked of the tables without moving a saga: look, count, clean up.

use chassis_core::Result;
use chassis_data::{Backend, params};

use super::definition::SagaId;
use super::instance::{Instance, SagaLogLine, columns};
use super::progress::SagaState;
use super::store::Store;

/// Instances removed at a time.
const CLEAN_BATCH: i64 = 100;
/// Instances are counted up to here: counting costs time.
const MAX_COUNT: i64 = 100_000;

macro_rules! census {
    ($of:literal) => {
        concat!(
            "SELECT state, COUNT(*), MIN(started_at) FROM (SELECT state, started_at
                FROM chassis_saga WHERE definition = $1 AND ",
            $of,
            " LIMIT $2) s GROUP BY state"
        )
    };
}

impl<B: Backend> Store<B> {
    pub(crate) async fn get(&self, id: &SagaId) -> Result<Option<Instance>> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM chassis_saga WHERE id = $1");
        let row = self.db.fetch_optional(SQL, params![id.as_str()]).await?;
        row.as_ref().map(Instance::read).transpose()
    }

    pub(crate) async fn find(&self, definition: &str, key: &str) -> Result<Option<Instance>> {
        const SQL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chassis_saga WHERE definition = $1 AND saga_key = $2"
        );
        let row = self.db.fetch_optional(SQL, params![definition, key]).await?;
        row.as_ref().map(Instance::read).transpose()
    }

    /// The newest first; those that began before `before`, if it is given.
    pub(crate) async fn list(
        &self,
        definition: &str,
        state: Option<SagaState>,
        before: Option<&SagaId>,
        limit: u32,
    ) -> Result<Vec<Instance>> {
        const ALL: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chassis_saga WHERE definition = $1 AND ($3 = '' OR id < $3)
                ORDER BY id DESC LIMIT $2"
        );
        const OF_STATE: &str = concat!(
            "SELECT ",
            columns!(),
            " FROM chassis_saga WHERE definition = $1 AND ($3 = '' OR id < $3) AND state = $4
                ORDER BY id DESC LIMIT $2"
        );
        let limit = i64::from(limit);
        let before = before.map_or("", SagaId::as_str);
        let rows = match state {
            None => self.db.fetch_all(ALL, params![definition, limit, before]).await?,
            Some(state) => {
                let values = params![definition, limit, before, state.as_str()];
                self.db.fetch_all(OF_STATE, values).await?
            }
        };
        rows.iter().map(Instance::read).collect()
    }

    pub(crate) async fn lines(&self, id: &SagaId) -> Result<Vec<SagaLogLine>> {
        const SQL: &str = "SELECT time, step, what, attempt, error, changes FROM chassis_saga_log
            WHERE saga_id = $1 ORDER BY n";
        let rows = self.db.fetch_all(SQL, params![id.as_str()]).await?;
        rows.iter()
            .map(|row| {
                Ok(SagaLogLine {
                    time: row.int(0)?,
                    step: row.text(1)?.to_owned(),
                    what: row.text(2)?.to_owned(),
                    attempt: row.int(3)?,
                    error: row.opt_text(4)?.map(str::to_owned),
                    changes: row.opt_text(5)?.and_then(|json| serde_json::from_str(json).ok()),
                })
            })
            .collect()
    }

    /// How many instances are in each state that has not ended, and when the oldest of
    /// them started.
    pub(crate) async fn census(&self, definition: &str) -> Result<Vec<(SagaState, i64, i64)>> {
        // One statement for each partial index.
        const ACTIVE: &str = census!("state IN ('running', 'compensating')");
        const PARKED: &str = census!("state = 'parked'");
        const QUEUED: &str = census!("state = 'queued'");
        let mut census = Vec::new();
        for sql in [ACTIVE, PARKED, QUEUED] {
            for row in self.db.fetch_all(sql, params![definition, MAX_COUNT]).await? {
                if let Some(state) = SagaState::parse(row.text(0)?) {
                    census.push((state, row.int(1)?, row.int(2)?));
                }
            }
        }
        Ok(census)
    }

    /// Removes instances of `definition` that ended before `before`, and signals
    /// that came before it and that no instance can still wait for. `true`: there
    /// may be more.
    pub(crate) async fn clean(&self, definition: &str, before: i64) -> Result<bool> {
        const ENDED: &str = "SELECT id FROM chassis_saga
            WHERE state IN ('completed', 'cancelled') AND updated_at < $1 AND definition = $3
            ORDER BY updated_at LIMIT $2";
        const SIGNALS: &str = "DELETE FROM chassis_saga_signal
            WHERE (definition, saga_key, event) IN (
                SELECT s.definition, s.saga_key, s.event FROM chassis_saga_signal s
                WHERE s.received_at < $1 AND s.definition = $3 AND NOT EXISTS (
                    SELECT 1 FROM chassis_saga i
                    WHERE i.definition = s.definition AND i.saga_key = s.saga_key
                      AND i.state IN ('running', 'compensating', 'parked'))
                ORDER BY s.received_at LIMIT $2)";
        let ended = self.db.fetch_all(ENDED, params![before, CLEAN_BATCH, definition]).await?;
        let mut tx = self.db.begin().await?;
        for row in &ended {
            let id = row.text(0)?;
            let lines = "DELETE FROM chassis_saga_log WHERE saga_id = $1";
            tx.execute(lines, params![id]).await?;
            tx.execute("DELETE FROM chassis_saga WHERE id = $1", params![id]).await?;
        }
        let signals = tx.execute(SIGNALS, params![before, CLEAN_BATCH, definition]).await?;
        tx.commit().await?;
        let full = usize::try_from(CLEAN_BATCH).unwrap_or(usize::MAX);
        Ok(ended.len() >= full || usize::try_from(signals).is_ok_and(|n| n >= full))
    }
}
