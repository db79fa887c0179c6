//! What starts, takes and moves a saga in the tables: one statement or one
//! transaction a method.

use chassis_core::{Error, Result};
use chassis_data::{Backend, Db, Dialect, Tx, params};

use super::definition::SagaId;
use super::instance::{Instance, SagaLogLine, columns};
use super::progress::SagaState;

/// Who holds an instance, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold<'a> {
    pub(crate) owner: &'a str,
    pub(crate) until: i64,
}

pub(crate) struct Store<B: Backend> {
    pub(crate) db: Db<B>,
}

impl<B: Backend> Store<B> {
    /// `false`: the key has a saga already.
    pub(crate) async fn insert(&self, tx: &mut Tx<B>, new: &Instance) -> Result<bool> {
        const SQL: &str = "INSERT INTO chassis_saga (id, definition, version, saga_key, state,
                backward, step, step_name, attempts, uncertain, rev, data, headers, waiting_for,
                wait_until, wake_at, lease_until, started_at, updated_at, business_key)
            VALUES ($1, $2, $3, $4, $5, 0, 0, $6, 0, 0, 0, $7, $8, $9, $10, $11, 0, $12, $12, $13)
            ON CONFLICT (definition, saga_key) DO NOTHING";
        let queued = new.position.state == SagaState::Queued;
        let slot = if queued { format!("{}/queued", new.id) } else { new.key.clone() };
        let values = params![
            new.id.as_str(),
            new.definition.as_str(),
            new.version,
            slot,
            new.position.state.as_str(),
            new.step_name.as_str(),
            new.data.as_str(),
            new.headers.as_str(),
            new.waiting_for.clone(),
            new.wait_until,
            new.wake_at,
            new.started_at,
            queued.then_some(new.key.as_str())
        ];
        Ok(tx.execute(SQL, values).await? == 1)
    }

    /// Keeps a signal and wakes the instance that waits for it. One that is there
    /// already stays as it is.
    pub(crate) async fn signal(
        &self,
        tx: &mut Tx<B>,
        definition: &str,
        key: &str,
        event: &str,
        payload: String,
        now: i64,
    ) -> Result<()> {
        const KEEP: &str = "INSERT INTO chassis_saga_signal
            (definition, saga_key, event, payload, received_at)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        tx.execute(KEEP, params![definition, key, event, payload, now]).await?;
        // First the signal, then the instance; a runner that begins to wait does
        // it the other way round. So one of the two sees the other, if this takes the row
        // whatever it waits for: by a condition it would pass over one of which the runner's
        // change is not committed yet, and wait for nobody.
        const WAKE: &str = "UPDATE chassis_saga SET wake_at =
                CASE WHEN waiting_for = $3 AND state = 'running' THEN 0 ELSE wake_at END
            WHERE definition = $1 AND saga_key = $2";
        let woken = tx.execute(WAKE, params![definition, key, event]).await?;
        if woken == 0 && tx.dialect() == Dialect::Postgres {
            // Nobody has the key, or it went to one that this statement knows nothing of: a
            // start under way, or the next of the key. After the start it is found; and each
            // turn in vain ends one of those that wait for the key, which are no more now.
            self.line_up(tx, definition, key).await?;
            while tx.execute(WAKE, params![definition, key, event]).await? == 0
                && self.has_owner(tx, definition, key).await?
            {}
        }
        Ok(())
    }

    async fn has_owner(&self, tx: &mut Tx<B>, definition: &str, key: &str) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM chassis_saga WHERE definition = $1 AND saga_key = $2";
        Ok(tx.fetch_optional(SQL, params![definition, key]).await?.is_some())
    }

    /// Puts the starts of a key, and the signals that find no saga of it, in line for the rest
    /// of the transaction. An instance that is not committed has no row that a signal could
    /// wait for, and the signal may be committed only when the instance has begun to wait. With
    /// this, each signal that is not committed has either the row that has the key, or this.
    ///
    /// Take it before any row of the key: a signal that waits for a row does not have it yet.
    pub(crate) async fn line_up(&self, tx: &mut Tx<B>, definition: &str, key: &str) -> Result<()> {
        // As text, since not every driver knows a result of the type `void`.
        const SQL: &str = "SELECT CAST(pg_advisory_xact_lock(hashtextextended($1, 0)) AS TEXT)";
        // SQLite has one writer at a time.
        if tx.dialect() == Dialect::Postgres {
            let name = format!("chassis_saga {definition} {key}");
            tx.fetch_optional(SQL, params![name]).await?;
        }
        Ok(())
    }

    /// The payload of a signal that came, as JSON.
    pub(crate) async fn signalled(
        &self,
        tx: &mut Tx<B>,
        definition: &str,
        key: &str,
        event: &str,
    ) -> Result<Option<String>> {
        const SQL: &str = "SELECT payload FROM chassis_saga_signal
            WHERE definition = $1 AND saga_key = $2 AND event = $3";
        let row = tx.fetch_optional(SQL, params![definition, key, event]).await?;
        row.map(|row| row.text(0).map(str::to_owned)).transpose()
    }

    /// Lets an instance begin to wait, unless its signal is there. Call it after
    /// the row was written in the same transaction. `true`: go on at once.
    pub(crate) async fn wake_if_signalled(
        &self,
        tx: &mut Tx<B>,
        instance: &Instance,
        event: &str,
    ) -> Result<bool> {
        let came = self.signalled(tx, &instance.definition, &instance.key, event).await?.is_some();
        if came {
            const SQL: &str = "UPDATE chassis_saga SET wake_at = 0 WHERE id = $1";
            tx.execute(SQL, params![instance.id.as_str()]).await?;
        }
        Ok(came)
    }

    /// Instances that could move now. Those of a version above `version` are left
    /// to a newer process.
    pub(crate) async fn due(
        &self,
        definition: &str,
        version: i64,
        now: i64,
        limit: usize,
    ) -> Result<Vec<SagaId>> {
        const SQL: &str = "SELECT id FROM chassis_saga
            WHERE definition = $1 AND version <= $2 AND state IN ('running', 'compensating')
              AND wake_at <= $3 AND lease_until <= $3
            ORDER BY wake_at LIMIT $4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.db.fetch_all(SQL, params![definition, version, now, limit]).await?;
        rows.iter().map(|row| Ok(SagaId::from(row.text(0)?))).collect()
    }

    /// Takes an instance if it is due and free. If its last owner did not let go,
    /// the current step may have happened.
    pub(crate) async fn claim(
        &self,
        id: &SagaId,
        version: i64,
        hold: Hold<'_>,
        now: i64,
    ) -> Result<Option<Instance>> {
        const SQL: &str = concat!(
            "UPDATE chassis_saga SET owner = $1, lease_until = $2,
                uncertain = CASE WHEN owner IS NULL THEN uncertain ELSE 1 END
            WHERE id = $3 AND version <= $4 AND state IN ('running', 'compensating')
              AND wake_at <= $5 AND lease_until <= $5
            RETURNING ",
            columns!()
        );
        let values = params![hold.owner, hold.until, id.as_str(), version, now];
        let mut tx = self.db.begin().await?;
        let row = tx.fetch_optional(SQL, values).await?;
        let instance = row.as_ref().map(Instance::read).transpose()?;
        tx.commit().await?;
        Ok(instance)
    }

    /// `false`: the instance has another owner by now.
    pub(crate) async fn renew(&self, instance: &Instance, hold: Hold<'_>) -> Result<bool> {
        const SQL: &str =
            "UPDATE chassis_saga SET lease_until = $1 WHERE id = $2 AND rev = $3 AND owner = $4";
        let values = params![hold.until, instance.id.as_str(), instance.rev, hold.owner];
        Ok(self.db.execute(SQL, values).await? == 1)
    }

    /// Writes `to` over its row, unless it has moved since, and adds a line to the log.
    /// `false`: it has moved, or `owner` does not hold it any more; an empty `owner` is
    /// nobody. `keep`: go on holding it.
    pub(crate) async fn write(
        &self,
        tx: &mut Tx<B>,
        owner: &str,
        to: &Instance,
        keep: Option<Hold<'_>>,
        line: SagaLogLine,
    ) -> Result<bool> {
        const MOVE: &str = "UPDATE chassis_saga SET state = $1, backward = $2, step = $3,
                step_name = $4, attempts = $5, uncertain = $6, data = $7, failure = $8,
                last_error = $9, waiting_for = $10, wait_until = $11, wake_at = $12,
                owner = $13, lease_until = $14, updated_at = $15, rev = rev + 1
            WHERE id = $16 AND rev = $17 AND COALESCE(owner, '') = $18";
        let at = &to.position;
        let values = params![
            at.state.as_str(),
            i64::from(at.backward),
            i64::try_from(at.step).unwrap_or(i64::MAX),
            to.step_name.as_str(),
            i64::from(at.attempts),
            i64::from(at.uncertain),
            to.data.as_str(),
            to.failure.clone(),
            to.last_error.clone(),
            to.waiting_for.clone(),
            to.wait_until,
            to.wake_at,
            keep.map(|hold| hold.owner.to_owned()),
            keep.map_or(0, |hold| hold.until),
            line.time,
            to.id.as_str(),
            to.rev,
            owner
        ];
        if tx.execute(MOVE, values).await? != 1 {
            return Ok(false);
        }
        self.log(tx, &to.id, to.rev + 1, line).await?;
        Ok(true)
    }

    pub(crate) async fn log(
        &self,
        tx: &mut Tx<B>,
        id: &SagaId,
        n: i64,
        line: SagaLogLine,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO chassis_saga_log
            (saga_id, n, time, step, what, attempt, error, changes)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let SagaLogLine { time, step, what, attempt, error, changes } = line;
        let changes = changes.map(|changes| serde_json::to_string(&changes)).transpose();
        let changes = changes.map_err(Error::internal)?;
        tx.execute(SQL, params![id.as_str(), n, time, step, what, attempt, error, changes]).await?;
        Ok(())
    }

    /// Lets go of an instance without moving it.
    pub(crate) async fn release(
        &self,
        tx: &mut Tx<B>,
        owner: &str,
        instance: &Instance,
        wake_at: i64,
    ) -> Result<()> {
        const SQL: &str = "UPDATE chassis_saga SET owner = NULL, lease_until = 0, wake_at = $1
            WHERE id = $2 AND rev = $3 AND owner = $4";
        tx.execute(SQL, params![wake_at, instance.id.as_str(), instance.rev, owner]).await?;
        Ok(())
    }
}
