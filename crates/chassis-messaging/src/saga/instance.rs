//! One saga as the table has it, and one line of its log.

use chassis_core::{Error, Result};
use chassis_data::Row;

use super::changes::SagaChanges;
use super::definition::SagaId;
use super::progress::{Position, SagaState};

/// The columns in the order in which [`Instance::read`] takes them.
macro_rules! columns {
    () => {
        "id, definition, version, saga_key, state, backward, step, step_name, attempts, \
         uncertain, rev, data, headers, failure, last_error, waiting_for, wait_until, wake_at, \
         owner, started_at, updated_at, business_key, lease_until"
    };
}
pub(super) use columns;

/// One row of the instances.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: SagaId,
    pub(crate) definition: String,
    pub(crate) version: i64,
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) step_name: String,
    pub(crate) rev: i64,
    /// JSON.
    pub(crate) data: String,
    /// JSON: the headers that carry the trace of whoever started it.
    pub(crate) headers: String,
    /// JSON of a [`Failure`](super::Failure).
    pub(crate) failure: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) waiting_for: Option<String>,
    pub(crate) wait_until: Option<i64>,
    pub(crate) wake_at: i64,
    pub(crate) owner: Option<String>,
    pub(crate) lease_until: i64,
    pub(crate) started_at: i64,
    pub(crate) updated_at: i64,
}

impl Instance {
    pub(super) fn read(row: &Row) -> Result<Instance> {
        let text = |i| row.text(i).map(str::to_owned);
        let opt_text = |i| row.opt_text(i).map(|text| text.map(str::to_owned));
        let count = |i| row.int(i).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let state = row.text(4)?;
        let state = SagaState::parse(state)
            .ok_or_else(|| Error::internal(format!("unknown saga state {state}")))?;
        Ok(Instance {
            id: SagaId::from(row.text(0)?),
            definition: text(1)?,
            version: row.int(2)?,
            // What waits for the key, or had it, has a name of its own in its column.
            key: opt_text(21)?.map_or_else(|| text(3), Ok)?,
            position: Position {
                state,
                backward: row.int(5)? != 0,
                step: usize::try_from(row.int(6)?).unwrap_or(usize::MAX),
                attempts: count(8)?,
                uncertain: row.int(9)? != 0,
            },
            step_name: text(7)?,
            rev: row.int(10)?,
            data: text(11)?,
            headers: text(12)?,
            failure: opt_text(13)?,
            last_error: opt_text(14)?,
            waiting_for: opt_text(15)?,
            wait_until: row.opt_int(16)?,
            wake_at: row.int(17)?,
            owner: opt_text(18)?,
            started_at: row.int(19)?,
            updated_at: row.int(20)?,
            lease_until: row.int(22)?,
        })
    }
}

/// One line of an instance's log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SagaLogLine {
    /// When, in unix milliseconds.
    pub time: i64,
    /// Which step.
    pub step: String,
    /// What happened, such as `done` or `retrying`.
    pub what: String,
    /// Which try it was.
    pub attempt: i64,
    /// Why, where it failed or somebody moved it.
    pub error: Option<String>,
    /// What changed in the data, if anything did.
    pub changes: Option<SagaChanges>,
}
