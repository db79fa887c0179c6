//! The component that moves sagas.
//!
//! It looks for instances that are due, leases each to a task of its own, and
//! lets the task move it until it waits or ends. It is woken by a commit in this
//! process; the poll is the net. A runner that dies leaves its leases to run
//! out; the next one goes on from the last transition that was written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Component, Env, Error, Ready, Result, Shutdown};
use chassis_data::Backend;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::definition::SagaId;
use super::handle::Sagas;
use super::metrics::{Census, TurnMetrics};
use super::operations::offer;
use super::progress::SagaState;
use super::settle::Advance;
use super::store::Hold;
use super::turn::Turn;
use crate::outbox::millis;

/// How often instances are counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How long to leave a database alone that did not answer.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// Moves the sagas of one definition: the component `saga-runner`.
pub struct SagaRunner<D, S, B: Backend = sqlx::Any> {
    sagas: Sagas<D, S, B>,
    /// Names this runner in the leases.
    owner: Arc<str>,
}

impl<D, S, B> SagaRunner<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    pub(super) fn new(sagas: Sagas<D, S, B>) -> Self {
        Self { sagas, owner: uuid::Uuid::now_v7().to_string().into() }
    }

    /// Makes one transition of one saga, if it is due and free, and says in what
    /// state it is then: for tests and tools. `None`: it was not due or not free.
    ///
    /// Dropping the future is a crash: the lease stays until it runs out, and the
    /// step counts as one that may have happened.
    ///
    /// # Errors
    ///
    /// What the database says; the saga goes on after its lease.
    pub async fn step(&self, env: &Env, id: &SagaId) -> Result<Option<SagaState>> {
        let metrics = TurnMetrics::new(env, self.sagas.current().name);
        let Some(mut turn) = self.claim(env, id, metrics).await? else { return Ok(None) };
        turn.advance(false).await?;
        Ok(Some(turn.state()))
    }

    /// The ids of the sagas that could move now, at most `limit`.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn due(&self, limit: usize) -> Result<Vec<SagaId>> {
        let now = self.sagas.time.read().await?;
        let name = self.sagas.current().name;
        self.sagas.store.due(name, self.sagas.version(), now, limit).await
    }

    async fn claim(
        &self,
        env: &Env,
        id: &SagaId,
        metrics: TurnMetrics,
    ) -> Result<Option<Turn<D, S, B>>> {
        let now = self.sagas.time.read().await?;
        let until = now.saturating_add(millis(self.sagas.config.lease));
        let hold = Hold { owner: &self.owner, until };
        let instance = self.sagas.store.claim(id, self.sagas.version(), hold, now).await?;
        Ok(instance.map(|instance| {
            let (sagas, owner) = (self.sagas.clone(), self.owner.clone());
            Turn { sagas, owner, env: env.clone(), metrics, instance, error: None }
        }))
    }

    /// Moves one saga until it waits or ends; gives the time at which it is due
    /// again, in unix milliseconds.
    async fn drive(
        self: Arc<Self>,
        env: Env,
        id: SagaId,
        metrics: TurnMetrics,
        shutdown: Shutdown,
    ) -> Result<Option<i64>> {
        let _counted = env.in_flight().enter("saga");
        let Some(mut turn) = self.claim(&env, &id, metrics).await? else { return Ok(None) };
        loop {
            match turn.advance(!shutdown.is_requested()).await? {
                Advance::Moved => {}
                Advance::Waits { until } => return Ok(Some(until)),
                Advance::Over => return Ok(None),
            }
        }
    }

    async fn serve(self: Arc<Self>, env: Env, shutdown: Shutdown) {
        let config = &self.sagas.config;
        let metrics = TurnMetrics::new(&env, self.sagas.current().name);
        let census = Census::new(&env, self.sagas.current().name);
        let mut wake = self.sagas.wake.subscribe();
        let mut tasks: JoinSet<(SagaId, Result<Option<i64>>)> = JoinSet::new();
        let mut busy: HashSet<SagaId> = HashSet::new();
        let (mut look_at, mut count_at) = (Instant::now(), Instant::now());
        let mut clean_at = Instant::now() + config.clean_every;
        while !shutdown.is_requested() {
            let now = Instant::now();
            if now >= look_at && tasks.len() < config.max_concurrent {
                wake.borrow_and_update();
                look_at = now + config.poll;
                // Room for those that are due and in hand already.
                match self.due(config.max_concurrent + busy.len()).await {
                    Ok(due) => {
                        let room = config.max_concurrent - tasks.len();
                        let fresh: Vec<SagaId> =
                            due.into_iter().filter(|id| !busy.contains(id)).take(room).collect();
                        for id in fresh {
                            busy.insert(id.clone());
                            let drive = self.clone().drive(
                                env.clone(),
                                id.clone(),
                                metrics.clone(),
                                shutdown.clone(),
                            );
                            tasks.spawn(env.scope(async move { (id, drive.await) }));
                        }
                    }
                    Err(error) => {
                        warn(&error);
                        look_at = now + config.poll.max(DATABASE_PAUSE);
                    }
                }
            }
            if now >= count_at {
                count_at = now + COUNT_EVERY;
                if let Err(error) = self.count(&census).await {
                    warn(&error);
                }
            }
            if now >= clean_at {
                clean_at = now + self.clean().await;
            }
            let mut alarm = count_at.min(clean_at);
            if tasks.len() < config.max_concurrent {
                alarm = alarm.min(look_at);
            }
            tokio::select! {
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    look_at = look_at.min(self.finished(&mut busy, done));
                }
                Ok(()) = wake.changed() => look_at = Instant::now(),
                () = sleep_until(alarm) => {}
                () = shutdown.requested() => {}
            }
        }
        // Each task ends after the step that it is in. What does not end in time
        // is dropped, which is a crash to the saga: its lease runs out.
        let deadline = shutdown.drain_deadline().instant();
        while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
    }

    /// Takes note that a task ended, and says when to look again.
    fn finished(
        &self,
        busy: &mut HashSet<SagaId>,
        done: std::result::Result<(SagaId, Result<Option<i64>>), tokio::task::JoinError>,
    ) -> Instant {
        let now = Instant::now();
        let never = now + self.sagas.config.poll;
        match done {
            Ok((id, result)) => {
                busy.remove(&id);
                match result {
                    Ok(Some(until)) => {
                        let wait = until.saturating_sub(self.sagas.time.estimate());
                        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
                        now + wait.min(self.sagas.config.poll)
                    }
                    // A free place: there may be more than fitted before.
                    Ok(None) => now,
                    Err(error) => {
                        warn(&error);
                        never
                    }
                }
            }
            Err(error) => {
                // Steps are guarded against panics, so this is a bug here; the
                // lease runs out and the saga goes on.
                tracing::error!(%error, "a saga task ended");
                busy.clear();
                never
            }
        }
    }

    async fn count(&self, census: &Census) -> Result<()> {
        let found = self.sagas.store.census(self.sagas.current().name).await?;
        census.set(&found, self.sagas.time.estimate());
        Ok(())
    }

    /// Removes what is past its retention, and says when to do it again.
    async fn clean(&self) -> Duration {
        let before = self.sagas.time.estimate().saturating_sub(millis(self.sagas.config.retention));
        match self.sagas.store.clean(self.sagas.current().name, before).await {
            Ok(true) => Duration::from_millis(50),
            Ok(false) => self.sagas.config.clean_every,
            Err(error) => {
                warn(&error);
                self.sagas.config.clean_every
            }
        }
    }
}

impl<D, S, B> Component for SagaRunner<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    fn name(&self) -> Cow<'static, str> {
        "saga-runner".into()
    }

    fn describe(&self) -> String {
        let definition = self.sagas.current();
        format!("{} version {}", definition.name, definition.version)
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.sagas.config.validate()?;
            for definition in &self.sagas.definitions {
                definition.validate()?;
            }
            match self.due(1).await {
                Ok(_) => {}
                // A database that is away comes back; a missing table does not.
                Err(error) if error.code().is_retryable() => warn(&error),
                Err(error) => return Err(error),
            }
            offer(&env, &self.sagas);
            ready.ready();
            Arc::new(*self).serve(env, shutdown).await;
            Ok(())
        })
    }
}

fn warn(error: &Error) {
    tracing::warn!(error = %error.chain(), "the saga runner cannot use its database");
}
