//! The second half of a turn: what a task came to becomes a transition, and the
//! transition a row and a line of the log.
//!
//! The write names the revision and the owner. If either has changed, somebody
//! else has moved the instance, and nothing is written.

use chassis_core::{Code, Error, Result};
use chassis_data::{Backend, Tx};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes::{SagaChanges, without_private};
use super::definition::{Failure, SagaDefinition};
use super::handle::arm;
use super::instance::{Instance, SagaLogLine};
use super::progress::{self, Happening, Next, Outcome, Position, SagaState};
use super::turn::Turn;
use crate::failpoint;
use crate::outbox::millis;

/// Tries of writing a transition that collided with another transaction.
const WRITE_TRIES: u32 = 5;
/// The longest error that is kept, in characters.
const MAX_ERROR: usize = 500;
/// The name of what remains when everything is undone.
const CANCEL: &str = "cancel";

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// It moved and is still in hand.
    Moved,
    /// It was let go until this time, in unix milliseconds.
    Waits { until: i64 },
    /// It ended, was parked, or belongs to somebody else by now.
    Over,
}

/// What a task came to, before it is written.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    /// The new data, as JSON.
    pub(super) data: Option<String>,
    pub(super) error: Option<Error>,
}

impl<D, S, B> Turn<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// Writes a transition in a transaction of its own.
    pub(super) async fn settle(
        &mut self,
        definition: &SagaDefinition<D, S, B>,
        ended: Ended,
        keep: bool,
    ) -> Result<Advance> {
        let mut tries = 1;
        loop {
            let written = async {
                let tx = self.sagas.store.db.begin().await?;
                self.write_and_commit(tx, definition, &ended, keep).await
            };
            match written.await {
                Err(error) if error.code() == Code::Aborted && tries < WRITE_TRIES => tries += 1,
                written => return written,
            }
        }
    }

    pub(super) async fn write_and_commit(
        &mut self,
        mut tx: Tx<B>,
        definition: &SagaDefinition<D, S, B>,
        ended: &Ended,
        keep: bool,
    ) -> Result<Advance> {
        let at = self.instance.position;
        let policy = self.sagas.config.policy();
        let next = progress::next(&definition.plan, at, ended.outcome, &policy, fastrand::f64());
        // Not read anew: that would take a second connection beside the transaction.
        let now = self.sagas.time.estimate();
        let mut to = self.instance.clone();
        if let Some(data) = &ended.data {
            to.data.clone_from(data);
        }
        to.position = next.position;
        to.step_name = name_at(definition, &next.position).to_owned();
        let described = ended.error.as_ref().map(describe);
        if let Some(error) = &ended.error {
            to.last_error.clone_from(&described);
            if next.position.backward && !at.backward {
                let failure = Failure::new(&self.instance.step_name, error);
                to.failure = Some(serde_json::to_string(&failure).map_err(Error::internal)?);
            }
        } else if next.happening == Happening::Done {
            to.last_error = None;
        }
        let pause = millis(next.pause);
        to.wake_at = if pause == 0 { 0 } else { now.saturating_add(pause) };
        let moved = (at.step, at.backward, at.state)
            != (next.position.step, next.position.backward, next.position.state);
        // A wait whose payload could not be taken keeps its time limit.
        let waits = if moved { arm(definition, &mut to, now) } else { None };
        let goes_on = next.position.state.is_active() && pause == 0 && waits.is_none();
        let held = keep && goes_on;
        let hold = held.then(|| self.hold(now));
        let line = SagaLogLine {
            time: now,
            step: self.instance.step_name.clone(),
            what: next.happening.as_str().to_owned(),
            attempt: i64::from(at.attempts) + 1,
            error: described.clone(),
            changes: ended.data.as_deref().and_then(|data| {
                SagaChanges::between(&self.instance.data, data, &definition.private)
            }),
        };
        let ended_now = to.position.state.has_ended();
        if ended_now && let Some(data) = without_private(&to.data, &definition.private) {
            to.data = data;
        }
        let store = &self.sagas.store;
        if !store.write(&mut tx, &self.owner, &to, hold, line).await? {
            tx.rollback().await;
            tracing::warn!(saga_id = %to.id, "a saga moved on without this runner");
            return Ok(Advance::Over);
        }
        if ended_now {
            store.hand_over(&mut tx, &to, definition.queue > 0, now).await?;
        }
        let came = match waits {
            Some(event) => store.wake_if_signalled(&mut tx, &to, event).await?,
            None => false,
        };
        failpoint::reach("saga.before_commit").await?;
        tx.commit().await?;
        failpoint::reach("saga.after_commit").await?;
        self.error = described;
        self.tell(&next, ended.error.as_ref());
        to.rev += 1;
        let until = if came { 0 } else { to.wake_at };
        self.instance = to;
        Ok(match next.position.state.is_active() {
            false => Advance::Over,
            true if held => Advance::Moved,
            true => Advance::Waits { until },
        })
    }

    fn tell(&self, next: &Next, error: Option<&Error>) {
        self.metrics.count(next);
        let Instance { id, key, definition, step_name: step, position, .. } = &self.instance;
        let (what, attempt) = (next.happening.as_str(), position.attempts + 1);
        let chain = error.map(Error::chain);
        match (next.happening, chain) {
            (Happening::Parked, chain) => tracing::error!(
                saga = definition, saga_id = %id, saga_key = key, step, attempt,
                error = chain.as_deref().unwrap_or_default(), "saga parked"
            ),
            (_, Some(error)) => tracing::warn!(
                saga = definition, saga_id = %id, saga_key = key, step, attempt, error,
                "saga step {what}"
            ),
            (_, None) => tracing::info!(
                saga = definition, saga_id = %id, saga_key = key, step, attempt, "saga step {what}"
            ),
        }
    }

    /// Parks an instance that this process cannot move.
    pub(super) async fn park(&mut self, reason: String) -> Result<Advance> {
        let now = self.sagas.time.read().await?;
        let mut to = self.instance.clone();
        to.position = Position { state: SagaState::Parked, ..to.position };
        self.error = Some(reason.clone());
        to.last_error = Some(reason.clone());
        to.wake_at = 0;
        let line = SagaLogLine {
            time: now,
            step: to.step_name.clone(),
            what: Happening::Parked.as_str().to_owned(),
            attempt: i64::from(to.position.attempts),
            error: Some(reason),
            changes: None,
        };
        let mut tx = self.sagas.store.db.begin().await?;
        if self.sagas.store.write(&mut tx, &self.owner, &to, None, line).await? {
            tx.commit().await?;
            self.metrics.parked.inc();
            let Instance { id, key, definition, .. } = &to;
            tracing::error!(
                saga = definition, saga_id = %id, saga_key = key,
                error = to.last_error.as_deref().unwrap_or_default(), "saga parked"
            );
            to.rev += 1;
            self.instance = to;
        }
        Ok(Advance::Over)
    }
}

/// The name of the step that a position stands before or undoes.
pub(super) fn name_at<D, S, B: Backend>(
    definition: &SagaDefinition<D, S, B>,
    at: &Position,
) -> &'static str {
    let index = if at.backward { at.step.checked_sub(1) } else { Some(at.step) };
    match index {
        Some(index) => definition.steps.get(index).map_or("", |step| step.name),
        None => CANCEL,
    }
}

pub(super) fn done(data: Option<String>) -> Ended {
    Ended { outcome: Outcome::Done, data, error: None }
}

pub(super) fn failed(error: Error) -> Ended {
    Ended { outcome: Outcome::of(&error), data: None, error: Some(error) }
}

/// A failure inside a transaction: it is rolled back, so nothing happened.
pub(super) fn rolled_back(error: Error) -> Ended {
    let outcome = match Outcome::of(&error) {
        Outcome::Failed { retryable, retry_after, .. } => {
            Outcome::Failed { retryable, happened: false, retry_after }
        }
        other => other,
    };
    Ended { outcome, data: None, error: Some(error) }
}

fn describe(error: &Error) -> String {
    format!("{}: {}", error.reason(), error.chain()).chars().take(MAX_ERROR).collect()
}
