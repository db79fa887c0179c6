//! A second saga for a key: it waits in the table until the first has ended.
//!
//! The row that has the key in its slot is the lock. A start that finds it taken locks that
//! row before it looks whether the saga has ended; the transaction that ends a saga has the
//! same row locked. So either the start sees the end, or the end sees the start.

use chassis_core::Result;
use chassis_data::{Backend, Tx, params};

use super::definition::SagaId;
use super::instance::{Instance, SagaLogLine, columns};
use super::store::Store;

impl<B: Backend> Store<B> {
    /// Locks the saga that has the key, for the rest of the transaction.
    pub(crate) async fn lock_key(
        &self,
        tx: &mut Tx<B>,
        definition: &str,
        key: &str,
    ) -> Result<Option<Instance>> {
        const SQL: &str = concat!(
            "UPDATE chassis_saga SET rev = rev WHERE definition = $1 AND saga_key = $2 RETURNING ",
            columns!()
        );
        let row = tx.fetch_optional(SQL, params![definition, key]).await?;
        row.as_ref().map(Instance::read).transpose()
    }

    /// How many wait for the key.
    pub(crate) async fn queued(&self, tx: &mut Tx<B>, definition: &str, key: &str) -> Result<i64> {
        const SQL: &str = "SELECT COUNT(*) FROM chassis_saga
            WHERE definition = $1 AND business_key = $2 AND state = 'queued'";
        let row = tx.fetch_optional(SQL, params![definition, key]).await?;
        row.map_or(Ok(0), |row| row.int(0))
    }

    /// Gives the key of a saga that has ended to the first that waits for it. `true`: one
    /// did. Call it in the transaction of the end. `forget`: what was signalled is for
    /// nobody else, even if nobody waits.
    pub(crate) async fn hand_over(
        &self,
        tx: &mut Tx<B>,
        ended: &Instance,
        forget: bool,
        now: i64,
    ) -> Result<bool> {
        const FIRST: &str = "SELECT id FROM chassis_saga
            WHERE definition = $1 AND business_key = $2 AND state = 'queued'
            ORDER BY id LIMIT 1";
        // Its time to wait for a signal begins now, not when it was asked for.
        const BEGIN: &str = "UPDATE chassis_saga SET saga_key = business_key, business_key = NULL,
                state = 'running', updated_at = $1, rev = rev + 1,
                wait_until = wait_until - started_at + $1,
                wake_at = COALESCE(wait_until - started_at + $1, 0)
            WHERE id = $2 AND state = 'queued' RETURNING rev, step_name";
        let (definition, key) = (ended.definition.as_str(), ended.key.as_str());
        let first = tx.fetch_optional(FIRST, params![definition, key]).await?;
        if first.is_some() || forget {
            const FORGET: &str =
                "DELETE FROM chassis_saga_signal WHERE definition = $1 AND saga_key = $2";
            tx.execute(FORGET, params![definition, key]).await?;
        }
        let Some(first) = first else { return Ok(false) };
        let first = first.text(0)?;
        self.give_up_key(tx, ended).await?;
        let Some(row) = tx.fetch_optional(BEGIN, params![now, first]).await? else {
            return Ok(false);
        };
        let line = SagaLogLine {
            time: now,
            step: row.text(1)?.to_owned(),
            what: "begun".to_owned(),
            attempt: 0,
            error: None,
            changes: None,
        };
        self.log(tx, &SagaId::from(first), row.int(0)?, line).await?;
        Ok(true)
    }

    /// Takes the key from a saga that has ended; it stays under its id.
    pub(crate) async fn give_up_key(&self, tx: &mut Tx<B>, ended: &Instance) -> Result<()> {
        const SQL: &str = "UPDATE chassis_saga
            SET business_key = saga_key, saga_key = $1 WHERE id = $2 AND business_key IS NULL";
        let slot = format!("{}/ended", ended.id);
        tx.execute(SQL, params![slot, ended.id.as_str()]).await?;
        Ok(())
    }
}
