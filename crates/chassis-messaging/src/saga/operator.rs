//! A person steps in: retry, skip, compensate.
//!
//! Each is one transaction that writes the move and a line of the log. It names the revision
//! and the owner that it saw, as a runner's write does. So it never races a runner: either
//! nobody holds the saga and the move is written, or it is refused as `SAGA_BUSY`.

use std::time::Duration;

use chassis_core::{Code, Error, Result};
use chassis_data::Backend;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes::without_private;
use super::definition::{Failure, SagaId};
use super::handle::{Sagas, arm};
use super::instance::{Instance, SagaLogLine};
use super::moves::{Move, steer};
use super::progress::SagaState;
use super::settle::name_at;
use super::view::SagaView;

/// The longest reason that is kept, in characters.
const MAX_WHY: usize = 500;
/// When to try again where a runner is at work.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

impl<D, S, B> Sagas<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Lets a parked saga go on where it stood, with all its tries. `false` if it
    /// is not parked.
    ///
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn resume(&self, id: &SagaId) -> Result<bool> {
        match self.instance(id).await? {
            Some(at) if at.position.state == SagaState::Parked => {
                match self.steer(at, Move::Retry, "").await {
                    Ok(_) => Ok(true),
                    // Somebody else was first.
                    Err(error) if error.reason() == BUSY => Ok(false),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(false),
        }
    }

    /// Lets a parked saga go on, or one that pauses between two tries try again at
    /// once; either has all its tries again.
    ///
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` with `SAGA_NOT_FOUND`; `FAILED_PRECONDITION` with the reason why it cannot
    /// be moved this way, such as `SAGA_NOT_STUCK` or `SAGA_ENDED`; `ABORTED` with
    /// `SAGA_BUSY` where a runner is at work: try again; and what the database says.
    pub async fn retry(&self, id: &SagaId) -> Result<SagaView> {
        self.steer(self.known(id).await?, Move::Retry, "").await
    }

    /// Counts the step that a saga is stuck at as done, or as undone, and goes on behind it.
    /// Somebody has done by hand what is to be done, or it need not be done; `why` says so in
    /// the log, and may be empty. Only where the saga is parked, waits for a signal or
    /// pauses between two tries.
    ///
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// As [`retry`](Sagas::retry), and `SAGA_VERSION_UNKNOWN` or `SAGA_DEFINITION_DIFFERS`
    /// where this process cannot tell which step that is.
    pub async fn skip(&self, id: &SagaId, why: &str) -> Result<SagaView> {
        self.steer(self.known(id).await?, Move::Skip, why).await
    }

    /// Begins to undo a saga that has not passed its pivot. `why` becomes the message of the
    /// [`Failure`] that ends it, under the reason `COMPENSATED_BY_OPERATOR`.
    ///
    /// Dropping the future leaves open whether it happened.
    ///
    /// # Errors
    ///
    /// As [`skip`](Sagas::skip), and `SAGA_PAST_PIVOT` or `SAGA_COMPENSATING`.
    pub async fn compensate(&self, id: &SagaId, why: &str) -> Result<SagaView> {
        self.steer(self.known(id).await?, Move::Compensate, why).await
    }

    async fn known(&self, id: &SagaId) -> Result<Instance> {
        self.instance(id).await?.ok_or_else(|| not_found(self.current().name))
    }

    async fn steer(&self, from: Instance, asked: Move, why: &str) -> Result<SagaView> {
        let now = self.time.read().await?;
        if from.owner.is_some() && from.lease_until > now {
            return Err(busy());
        }
        let definition = self.definition(from.version);
        let mut to = from.clone();
        // An owner that did not let go died at work: the step may have happened.
        to.position.uncertain |= from.owner.is_some();
        let plan = definition.as_ref().map_or(&[][..], |definition| &definition.plan);
        if asked != Move::Retry && from.position.state != SagaState::Queued {
            let Some(definition) = &definition else {
                let message = format!("this process does not know version {}", from.version);
                return Err(Error::failed_precondition("SAGA_VERSION_UNKNOWN", message));
            };
            let (was, is) = (&from.step_name, name_at(definition, &from.position));
            if was != is && !from.position.state.has_ended() {
                let message = format!("it stands before {was}, but its definition has {is} there");
                return Err(Error::failed_precondition("SAGA_DEFINITION_DIFFERS", message));
            }
        }
        to.position = steer(plan, to.position, asked)?;
        to.wake_at = 0;
        let why: Option<String> =
            Some(why.chars().take(MAX_WHY).collect()).filter(|why: &String| !why.is_empty());
        if asked != Move::Retry {
            to.last_error = None;
        }
        if asked == Move::Compensate {
            let message = why.clone().unwrap_or_else(|| "an operator asked for it".to_owned());
            let error = Error::new(Code::Cancelled, "COMPENSATED_BY_OPERATOR", message);
            let failure = Failure::new(&from.step_name, &error);
            to.failure = Some(serde_json::to_string(&failure).map_err(Error::internal)?);
        }
        let waits = definition.as_ref().and_then(|definition| {
            to.step_name = name_at(definition, &to.position).to_owned();
            arm(definition, &mut to, now)
        });
        let line = SagaLogLine {
            time: now,
            step: from.step_name.clone(),
            what: asked.as_str().to_owned(),
            attempt: i64::from(from.position.attempts),
            error: why,
            changes: None,
        };
        let ended = to.position.state.has_ended();
        let private = definition.as_ref().map_or(&[][..], |definition| &definition.private);
        if ended && let Some(data) = without_private(&to.data, private) {
            to.data = data;
        }
        let mut tx = self.store.db.begin().await?;
        let owner = from.owner.as_deref().unwrap_or_default();
        if !self.store.write(&mut tx, owner, &to, None, line).await? {
            tx.rollback().await;
            return Err(busy());
        }
        if ended {
            let queues = definition.as_ref().is_some_and(|definition| definition.queue > 0);
            self.store.hand_over(&mut tx, &to, queues, now).await?;
        }
        if let Some(event) = waits {
            self.store.wake_if_signalled(&mut tx, &to, event).await?;
        }
        self.wake_after(&mut tx);
        tx.commit().await?;
        let Instance { id, key, definition, .. } = &to;
        tracing::info!(
            saga = definition, saga_id = %id, saga_key = key, step = from.step_name,
            "saga {} by an operator", asked.as_str()
        );
        // As it is now: a runner may have gone on already, or it may have been cleaned up.
        let shown = self.show(id).await?;
        Ok(shown.unwrap_or_else(|| self.view(to, Vec::new())))
    }
}

const BUSY: &str = "SAGA_BUSY";

fn busy() -> Error {
    Error::aborted(BUSY, "a runner is moving it at this moment; try again")
        .with_retry_after(BUSY_PAUSE)
}

pub(super) fn not_found(definition: &str) -> Error {
    Error::not_found("SAGA_NOT_FOUND", format!("there is no such {definition} saga"))
}
