//! What a service holds: start, signal and look.

use std::collections::BTreeMap;
use std::sync::Arc;

use chassis_core::{Context, Error, Result, propagation};
use chassis_data::{Backend, Db, Migrations, Tx};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::definition::{SagaDefinition, SagaId};
use super::instance::{Instance, SagaLogLine};
use super::progress::{Kind, Position, SagaState};
use super::runner::SagaRunner;
use super::schema;
use super::settings::SagaConfig;
use super::store::Store;
use super::view::SagaView;
use crate::outbox::{Clock, DbTime, millis};

/// The longest data of a saga and payload of a signal, in bytes of JSON.
const MAX_JSON: usize = 1024 * 1024;
/// Looks for the key before a start gives up: each but the last finds it changed.
const START_TRIES: u32 = 4;
/// The longest key, in bytes.
const MAX_KEY: usize = 512;

/// The sagas of one definition in one database. Cheap to clone if `S` is.
pub struct Sagas<D, S, B: Backend = sqlx::Any> {
    pub(super) store: Arc<Store<B>>,
    /// The current definition first, then older ones.
    pub(super) definitions: Vec<Arc<SagaDefinition<D, S, B>>>,
    pub(super) state: S,
    pub(super) config: SagaConfig,
    pub(super) time: Arc<DbTime<B>>,
    /// Tells the runners of this process that there may be something to do.
    pub(super) wake: Arc<watch::Sender<u64>>,
}

impl<D, S: Clone, B: Backend> Clone for Sagas<D, S, B> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            definitions: self.definitions.clone(),
            state: self.state.clone(),
            config: self.config.clone(),
            time: self.time.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<D, S, B> Sagas<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// The sagas of `definition` in `db`; each step gets a clone of `state`.
    #[must_use]
    pub fn new(db: &Db<B>, definition: SagaDefinition<D, S, B>, state: S) -> Self {
        Self {
            store: Arc::new(Store { db: db.clone() }),
            definitions: vec![Arc::new(definition)],
            state,
            config: SagaConfig::default(),
            time: Arc::new(DbTime::new(db.clone(), Clock::database())),
            wake: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same sagas with other numbers.
    #[must_use]
    pub fn with_config(mut self, config: SagaConfig) -> Self {
        self.config = config;
        self
    }

    /// The same sagas on another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.time = Arc::new(DbTime::new(self.store.db.clone(), clock));
        self
    }

    /// Also runs instances that an older version of the definition started.
    /// Without it they are parked, with that reason.
    #[must_use]
    pub fn with_older(mut self, definition: SagaDefinition<D, S, B>) -> Self {
        self.definitions.push(Arc::new(definition));
        self
    }

    /// The tables that sagas need, for [`Db::migrate`]. All definitions of a
    /// database share them.
    #[must_use]
    pub fn migrations(&self) -> Migrations {
        schema::migrations()
    }

    /// The component that moves the sagas: `saga-runner`. Several may run, here
    /// and in other processes: they share the work.
    #[must_use]
    pub fn runner(&self) -> SagaRunner<D, S, B> {
        SagaRunner::new(self.clone())
    }

    /// The current definition as a Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        self.current().mermaid()
    }

    /// The definition of a saga as a Mermaid flowchart that shows where the saga stands:
    /// what is done, what was undone, and what it does now. `None` where there is no such
    /// saga, or its version of the definition is not known here.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn diagram(&self, id: &SagaId) -> Result<Option<String>> {
        let Some(instance) = self.instance(id).await? else { return Ok(None) };
        Ok(self.definition(instance.version).map(|definition| definition.mermaid_at(&instance)))
    }

    pub(super) fn current(&self) -> &SagaDefinition<D, S, B> {
        // `new` puts one in, and nothing takes it out.
        &self.definitions[0]
    }

    pub(super) fn version(&self) -> i64 {
        let newest = self.definitions.iter().map(|definition| definition.version).max();
        i64::from(newest.unwrap_or_default())
    }

    pub(super) fn definition(&self, version: i64) -> Option<Arc<SagaDefinition<D, S, B>>> {
        let same = |d: &&Arc<SagaDefinition<D, S, B>>| i64::from(d.version) == version;
        self.definitions.iter().find(same).cloned()
    }

    /// Starts a saga with the caller's transaction: it runs after the commit, or
    /// never if there is none. Its steps belong to the trace of the ambient
    /// [`Context`].
    ///
    /// It waits for open transactions that start a saga of this key, or signalled it when
    /// there was none. Two transactions that start and signal several keys, each in its own
    /// order, may wait for each other: PostgreSQL then ends one of them, as `ABORTED`.
    ///
    /// Dropping the future leaves the transaction as a failed statement does:
    /// roll it back.
    ///
    /// # Errors
    ///
    /// `ALREADY_EXISTS` with the reason `SAGA_EXISTS` where `key` has a saga of
    /// this definition, whatever became of it. Where a
    /// [second start waits](SagaDefinition::second_start_waits) it is not refused;
    /// `RESOURCE_EXHAUSTED` with the reason `SAGA_QUEUE_FULL` where too many wait.
    /// The transaction is still usable after these.
    /// `INVALID_ARGUMENT` for an empty or long key or too much data;
    /// `FAILED_PRECONDITION` for a definition that does not
    /// [`validate`](SagaDefinition::validate); and what the database says.
    pub async fn start(&self, tx: &mut Tx<B>, key: &str, data: D) -> Result<SagaId> {
        let definition = self.current();
        definition.validate()?;
        if key.is_empty() || key.len() > MAX_KEY {
            let message = format!("a saga's key has 1 to {MAX_KEY} bytes");
            return Err(Error::invalid_argument("INVALID_SAGA_KEY", message));
        }
        let data = to_json(&data)?;
        let mut headers = BTreeMap::new();
        if let Some(context) = Context::try_current() {
            propagation::inject(&context, |name, value| {
                headers.insert(name, value.to_owned());
            });
        }
        let now = self.time.estimate();
        let mut instance = Instance {
            id: SagaId::new(),
            definition: definition.name.to_owned(),
            version: i64::from(definition.version),
            key: key.to_owned(),
            position: Position::START,
            step_name: definition.steps.first().map_or("", |step| step.name).to_owned(),
            rev: 0,
            data,
            headers: serde_json::to_string(&headers).map_err(Error::internal)?,
            failure: None,
            last_error: None,
            waiting_for: None,
            wait_until: None,
            wake_at: 0,
            owner: None,
            lease_until: 0,
            started_at: now,
            updated_at: now,
        };
        let waits = arm(definition, &mut instance, now);
        if definition.has_waits() {
            self.store.line_up(tx, definition.name, key).await?;
        }
        if !self.store.insert(tx, &instance).await? {
            if definition.queue == 0 {
                let message = format!("there is a {} saga for this key already", definition.name);
                return Err(Error::already_exists("SAGA_EXISTS", message));
            }
            self.start_second(tx, definition, &mut instance, now).await?;
        }
        if let Some(event) = waits.filter(|_| instance.position.state.is_active()) {
            self.store.wake_if_signalled(tx, &instance, event).await?;
        }
        self.wake_after(tx);
        Ok(instance.id)
    }

    /// Starts a saga for a key that another one has, or waits for that to end.
    async fn start_second(
        &self,
        tx: &mut Tx<B>,
        definition: &SagaDefinition<D, S, B>,
        instance: &mut Instance,
        now: i64,
    ) -> Result<()> {
        for _ in 0..START_TRIES {
            let Some(first) = self.store.lock_key(tx, definition.name, &instance.key).await? else {
                // It gave the key up in the meantime.
                if self.store.insert(tx, instance).await? {
                    return Ok(());
                }
                continue;
            };
            if !first.position.state.has_ended() {
                let waiting = self.store.queued(tx, definition.name, &instance.key).await?;
                if waiting >= i64::from(definition.queue) {
                    let message = format!("{waiting} sagas wait for this key already");
                    return Err(Error::resource_exhausted("SAGA_QUEUE_FULL", message));
                }
                instance.position.state = SagaState::Queued;
                self.store.insert(tx, instance).await?;
                return Ok(());
            }
            // A process that knows nothing of waiting may have ended it.
            if !self.store.hand_over(tx, &first, false, now).await? {
                self.store.give_up_key(tx, &first).await?;
            }
        }
        let message = "the sagas of this key change too fast; try again";
        Err(Error::aborted("SAGA_BUSY", message))
    }

    /// Tells the saga of `key` that `event` happened, with the caller's
    /// transaction.
    ///
    /// A signal that comes before the saga waits for it, or before there is a
    /// saga, is kept. One that comes twice, or when the saga no longer waits,
    /// changes nothing. It waits for open transactions that start or move the saga; see
    /// [`start`](Sagas::start).
    ///
    /// Dropping the future leaves the transaction as a failed statement does:
    /// roll it back.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a payload that is too large, and what the database
    /// says.
    pub async fn signal(
        &self,
        tx: &mut Tx<B>,
        key: &str,
        event: &str,
        payload: serde_json::Value,
    ) -> Result<()> {
        let payload = to_json(&payload)?;
        let now = self.time.estimate();
        self.store.signal(tx, self.current().name, key, event, payload, now).await?;
        self.wake_after(tx);
        Ok(())
    }

    /// The newest sagas, of one state or of all, without their logs.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn list(&self, state: Option<SagaState>, limit: u32) -> Result<Vec<SagaView>> {
        self.list_before(None, state, limit).await
    }

    /// The next page of a [`list`](Sagas::list): the newest sagas that began before the
    /// last one of the page before, `before`.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn list_before(
        &self,
        before: Option<&SagaId>,
        state: Option<SagaState>,
        limit: u32,
    ) -> Result<Vec<SagaView>> {
        let instances = self.store.list(self.current().name, state, before, limit).await?;
        Ok(instances.into_iter().map(|instance| self.view(instance, Vec::new())).collect())
    }

    /// One saga with its log: where it is, what remains, why it waits.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn show(&self, id: &SagaId) -> Result<Option<SagaView>> {
        self.with_log(self.instance(id).await?).await
    }

    /// The saga of a business key, with its log.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn find(&self, key: &str) -> Result<Option<SagaView>> {
        self.with_log(self.store.find(self.current().name, key).await?).await
    }

    /// One saga of this definition.
    pub(super) async fn instance(&self, id: &SagaId) -> Result<Option<Instance>> {
        let instance = self.store.get(id).await?;
        Ok(instance.filter(|instance| instance.definition == self.current().name))
    }

    async fn with_log(&self, instance: Option<Instance>) -> Result<Option<SagaView>> {
        let Some(instance) = instance else { return Ok(None) };
        let lines = self.store.lines(&instance.id).await?;
        Ok(Some(self.view(instance, lines)))
    }

    pub(super) fn view(&self, instance: Instance, log: Vec<SagaLogLine>) -> SagaView {
        let definition = self.definition(instance.version);
        // Also what a version that is not known here would hide, as far as that is known.
        let private: Vec<&str> = self.definitions.iter().flat_map(|d| d.private.clone()).collect();
        SagaView::new(definition.as_deref(), &private, instance, log)
    }

    pub(super) fn wake_after(&self, tx: &mut Tx<B>) {
        let wake = self.wake.clone();
        tx.on_commit(move || wake.send_modify(|changes| *changes += 1));
    }
}

/// Data as JSON, if it is not too much.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    let json = serde_json::to_string(value).map_err(Error::internal)?;
    if json.len() > MAX_JSON {
        let message = format!("{} bytes of JSON, the limit is {MAX_JSON}", json.len());
        return Err(Error::invalid_argument("SAGA_DATA_TOO_LARGE", message));
    }
    Ok(json)
}

/// Sets an instance to wait if it stands before a wait, and gives the event.
pub(super) fn arm<D, S, B: Backend>(
    definition: &SagaDefinition<D, S, B>,
    instance: &mut Instance,
    now: i64,
) -> Option<&'static str> {
    let at = instance.position;
    let kind = definition.plan.get(at.step).filter(|_| at.state == SagaState::Running);
    let Some(Kind::Wait { timeout }) = kind else {
        instance.waiting_for = None;
        instance.wait_until = None;
        return None;
    };
    let event = definition.steps.get(at.step)?.name;
    let until = now.saturating_add(millis(*timeout));
    instance.waiting_for = Some(event.to_owned());
    instance.wait_until = Some(until);
    instance.wake_at = until;
    Some(event)
}
