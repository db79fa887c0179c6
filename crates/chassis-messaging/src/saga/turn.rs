//! One instance in hand: runs what its position asks for and writes the transition.
//!
//! A step runs first and its transition is written afterwards, so a crash in
//! between runs it again, under the same idempotency key. A pivot or local step
//! and its transition are one transaction. Either way the write names the
//! revision and the owner; a runner that was paused past its lease writes nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chassis_core::error::panic_text;
use chassis_core::{Code, Context, Deadline, Env, Error, Result, Span, SpanKind, propagation};
use chassis_data::{Backend, Tx};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::definition::{Body, Failure, SagaDefinition, StepInfo};
use super::handle::{Sagas, to_json};
use super::handler::DynTxStep;
use super::instance::Instance;
use super::metrics::TurnMetrics;
use super::progress::{self, Outcome, SagaState, Task};
use super::settle::{Advance, Ended, done, failed, name_at, rolled_back};
use super::store::Hold;
use crate::failpoint;
use crate::outbox::millis;

/// A failure that is not worth a retry and has taken effect.
const HAPPENED: Outcome = Outcome::Failed { retryable: false, happened: true, retry_after: None };

pub(super) struct Turn<D, S, B: Backend> {
    pub(super) sagas: Sagas<D, S, B>,
    pub(super) owner: Arc<str>,
    pub(super) env: Env,
    pub(super) metrics: TurnMetrics,
    pub(super) instance: Instance,
    /// Why the last transition failed, for its span.
    pub(super) error: Option<String>,
}

impl<D, S, B> Turn<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    pub(super) fn state(&self) -> SagaState {
        self.instance.position.state
    }

    /// Makes one transition. `keep`: hold on to the instance if it can go on.
    pub(super) async fn advance(&mut self, keep: bool) -> Result<Advance> {
        let context = self.context();
        let saga = self.sagas.current().name;
        let direction = if self.instance.position.backward { "undo " } else { "" };
        let name = format!("saga {saga} {direction}{}", self.instance.step_name);
        let mut span = Span::start(&context, SpanKind::Internal, name);
        span.set("saga.id", self.instance.id.as_str());
        span.set("saga.key", self.instance.key.clone());
        self.error = None;
        let result = context.scope(self.transition(keep)).await;
        if let Err(error) = &result {
            span.fail(error.chain());
        } else if let Some(error) = &self.error {
            span.fail(error.clone());
        }
        result
    }

    /// A child of the span that started the saga, with the time that a step has.
    fn context(&self) -> Context {
        let headers: BTreeMap<String, String> =
            serde_json::from_str(&self.instance.headers).unwrap_or_default();
        propagation::extract_from_within(&self.env, |name| headers.get(name).map(String::as_str))
            .with_deadline(Deadline::after(self.sagas.config.step_timeout))
    }

    async fn transition(&mut self, keep: bool) -> Result<Advance> {
        let version = self.instance.version;
        let Some(definition) = self.sagas.definition(version) else {
            let known = self.sagas.version();
            let name = self.sagas.current().name;
            return self
                .park(format!("started by version {version} of {name}; this process knows {known}"))
                .await;
        };
        let at = self.instance.position;
        let Some(task) = progress::task(&definition.plan, &at) else {
            return self.park(format!("the definition has no step {}", at.step)).await;
        };
        let expected = name_at(&definition, &at);
        if expected != self.instance.step_name {
            let was = &self.instance.step_name;
            return self
                .park(format!("it stands before {was}, but version {version} has {expected} there"))
                .await;
        }
        let data: D = match serde_json::from_str(&self.instance.data) {
            Ok(data) => data,
            Err(error) => return self.park(format!("its data cannot be read: {error}")).await,
        };
        match task {
            Task::Do(n) | Task::Undo(n) => {
                let undo = matches!(task, Task::Undo(_));
                let Some(step) = definition.steps.get(n) else { return Ok(Advance::Over) };
                let info = StepInfo {
                    saga: self.instance.id.clone(),
                    key: self.instance.key.clone(),
                    step: step.name,
                    attempt: at.attempts + 1,
                    undo,
                };
                let run = match &step.body {
                    Body::Step { undo: run, .. } if undo => run,
                    Body::Step { run, .. } | Body::Action { run } => run,
                    _ => return self.park(format!("{} cannot be run here", step.name)).await,
                };
                let call = run.call(self.sagas.state.clone(), data, info);
                let Some(result) = self.hold_while(call).await else {
                    return Ok(Advance::Over);
                };
                failpoint::reach("saga.after_step").await?;
                let ended = match result.map(|data| to_json(&data)) {
                    Ok(Ok(data)) => done(Some(data)),
                    // The step is done, and what it gave cannot be kept.
                    Ok(Err(error)) => Ended { outcome: HAPPENED, data: None, error: Some(error) },
                    Err(error) => failed(error),
                };
                self.settle(&definition, ended, keep).await
            }
            Task::Commit(n) => match definition.steps.get(n).map(|step| &step.body) {
                Some(Body::Pivot { run } | Body::Local { run }) => {
                    let run = run.clone();
                    self.commit(&definition, &*run, data, keep).await
                }
                _ => self.park(format!("step {n} cannot be run in a transaction")).await,
            },
            Task::Await(n) => match definition.steps.get(n).map(|step| (step.name, &step.body)) {
                Some((event, Body::Wait { merge })) => {
                    let merge = merge.clone();
                    self.look(&definition, event, |payload| merge(data, payload), keep).await
                }
                _ => self.park(format!("step {n} is not a wait")).await,
            },
            Task::Cancel => self.cancel(&definition, data, keep).await,
        }
    }

    /// Runs a step with its time limit while the lease is renewed. `None`: the
    /// lease was lost, and the step was dropped.
    async fn hold_while<T>(
        &self,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Option<Result<T>> {
        let limit = self.sagas.config.step_timeout;
        tokio::select! {
            biased;
            result = timeout(limit, guarded(call)) => Some(result.unwrap_or_else(|_| {
                let message = format!("the step took longer than {limit:?}");
                Err(Error::deadline_exceeded("STEP_TIMEOUT", message))
            })),
            () = self.renew_until_lost() => {
                let id = &self.instance.id;
                tracing::warn!(saga_id = %id, "the lease of a saga was lost; its step was dropped");
                None
            }
        }
    }

    async fn renew_until_lost(&self) {
        loop {
            sleep(self.sagas.config.lease / 3).await;
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => return,
                // Perhaps the next one works. If not, the write decides.
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the lease of a saga was not renewed");
                }
            }
        }
    }

    async fn renew(&self) -> Result<bool> {
        let now = self.sagas.time.read().await?;
        self.sagas.store.renew(&self.instance, self.hold(now)).await
    }

    pub(super) fn hold(&self, now: i64) -> Hold<'_> {
        let until = now.saturating_add(millis(self.sagas.config.lease));
        Hold { owner: &self.owner, until }
    }

    /// A pivot or local step: its work and the transition in one transaction.
    async fn commit(
        &mut self,
        definition: &SagaDefinition<D, S, B>,
        run: &dyn DynTxStep<D, S, B>,
        data: D,
        keep: bool,
    ) -> Result<Advance> {
        let mut tx = self.sagas.store.db.begin().await?;
        let call = run.call(self.sagas.state.clone(), &mut tx, data);
        let Some(result) = self.hold_while(call).await else { return Ok(Advance::Over) };
        match result.and_then(|data| to_json(&data)) {
            Ok(data) => self.commit_with(tx, definition, done(Some(data)), keep).await,
            Err(error) => self.roll_back(tx, definition, error, keep).await,
        }
    }

    /// The end of an undone saga: the user's part and the transition in one
    /// transaction.
    async fn cancel(
        &mut self,
        definition: &SagaDefinition<D, S, B>,
        data: D,
        keep: bool,
    ) -> Result<Advance> {
        let Some(cancelled) = &definition.cancelled else {
            return self.settle(definition, done(None), keep).await;
        };
        let why = self.instance.failure.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let why = why.unwrap_or_else(|| {
            Failure::new("", &Error::new(Code::Unknown, "UNKNOWN", "the reason was not kept"))
        });
        let mut tx = self.sagas.store.db.begin().await?;
        let call = cancelled.call(self.sagas.state.clone(), &mut tx, data, why);
        let Some(result) = self.hold_while(call).await else { return Ok(Advance::Over) };
        match result {
            Ok(()) => self.commit_with(tx, definition, done(None), keep).await,
            Err(error) => self.roll_back(tx, definition, error, keep).await,
        }
    }

    /// Writes the transition beside the work that is in `tx`.
    async fn commit_with(
        &mut self,
        tx: Tx<B>,
        definition: &SagaDefinition<D, S, B>,
        ended: Ended,
        keep: bool,
    ) -> Result<Advance> {
        match self.write_and_commit(tx, definition, &ended, keep).await {
            // It collided with another transaction: the work is tried again.
            Err(error) if error.code() == Code::Aborted => {
                self.settle(definition, rolled_back(error), keep).await
            }
            written => written,
        }
    }

    async fn roll_back(
        &mut self,
        tx: Tx<B>,
        definition: &SagaDefinition<D, S, B>,
        error: Error,
        keep: bool,
    ) -> Result<Advance> {
        tx.rollback().await;
        self.settle(definition, rolled_back(error), keep).await
    }

    /// A wait: goes on if the signal is there, times out if it is too late, else
    /// lets go again.
    async fn look(
        &mut self,
        definition: &SagaDefinition<D, S, B>,
        event: &'static str,
        merge: impl FnOnce(serde_json::Value) -> Result<D> + Send,
        keep: bool,
    ) -> Result<Advance> {
        let store = self.sagas.store.clone();
        let now = self.sagas.time.read().await?;
        let mut tx = store.db.begin().await?;
        let payload =
            store.signalled(&mut tx, &self.instance.definition, &self.instance.key, event).await?;
        if let Some(payload) = payload {
            tx.rollback().await;
            let payload = serde_json::from_str(&payload).map_err(Error::internal);
            let merged = guarded(async { merge(payload?) }).await;
            let ended = match merged.and_then(|data| to_json(&data)) {
                Ok(data) => done(Some(data)),
                Err(error) => rolled_back(error),
            };
            return self.settle(definition, ended, keep).await;
        }
        let until = self.instance.wait_until.unwrap_or(now);
        if now >= until {
            tx.rollback().await;
            let message = format!("the signal {event} did not come in time");
            let error = Error::deadline_exceeded("SIGNAL_TIMEOUT", message);
            let ended = Ended { outcome: Outcome::TimedOut, data: None, error: Some(error) };
            return self.settle(definition, ended, keep).await;
        }
        store.release(&mut tx, &self.owner, &self.instance, until).await?;
        let came = store.wake_if_signalled(&mut tx, &self.instance, event).await?;
        tx.commit().await?;
        Ok(Advance::Waits { until: if came { 0 } else { until } })
    }
}

/// A future whose panic becomes an error: one bad step must not end the runner.
async fn guarded<T>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Error::internal(format!("the step panicked: {}", panic_text(&*panic)))),
    }
}
