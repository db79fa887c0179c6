//! A saga as a table of steps: one line each, in the order in which they run.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Error, Result};
use chassis_data::Backend;
use serde::{Deserialize, Serialize};

use super::handler::{CancelStep, DynCancelStep, DynStep, DynTxStep, Function, TxStep};
use super::progress::{Kind, past_pivot};

/// The id of one saga. Unique, and sorted by the time of its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(String);

impl SagaId {
    pub(crate) fn new() -> SagaId {
        SagaId(uuid::Uuid::now_v7().to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SagaId {
    fn from(id: String) -> SagaId {
        SagaId(id)
    }
}

impl From<&str> for SagaId {
    fn from(id: &str) -> SagaId {
        SagaId(id.to_owned())
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a step may know about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// The saga.
    pub saga: SagaId,
    /// The business key of the saga.
    pub key: String,
    /// The name of the step.
    pub step: &'static str,
    /// Which try this is: 1 for the first.
    pub attempt: u32,
    /// Whether the step is being undone.
    pub undo: bool,
}

impl StepInfo {
    /// The same in each try of this step, another for its undo: give it to the
    /// called service, so that a try that is repeated happens once.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        let undo = if self.undo { "/undo" } else { "" };
        format!("{}/{}{undo}", self.saga, self.step)
    }
}

/// Why a saga is being undone: the failure of one of its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub step: String,
    /// The name of its [`Code`], such as `FAILED_PRECONDITION`.
    pub code: String,
    /// Its stable reason, such as `ITEM_NOT_FOUND`.
    pub reason: String,
    /// Its public message.
    pub message: String,
    /// Its public details.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

impl Failure {
    pub(crate) fn new(step: &str, error: &Error) -> Failure {
        Failure {
            step: step.to_owned(),
            code: error.code().as_str().to_owned(),
            reason: error.reason().to_owned(),
            message: error.message().to_owned(),
            details: error.details().iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        }
    }

    /// The [`Code`] of the failure.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::parse(&self.code).unwrap_or(Code::Unknown)
    }
}

type Merge<D> = Arc<dyn Fn(D, serde_json::Value) -> Result<D> + Send + Sync>;

pub(crate) enum Body<D, S, B: Backend> {
    Step { run: Arc<dyn DynStep<D, S>>, undo: Arc<dyn DynStep<D, S>> },
    Action { run: Arc<dyn DynStep<D, S>> },
    Pivot { run: Arc<dyn DynTxStep<D, S, B>> },
    Local { run: Arc<dyn DynTxStep<D, S, B>> },
    Wait { merge: Merge<D> },
}

pub(crate) struct StepDefinition<D, S, B: Backend> {
    /// For a wait: the event that it waits for.
    pub(crate) name: &'static str,
    pub(crate) body: Body<D, S, B>,
}

/// A saga as a table of steps. `D` is its data, `S` what its steps need, such as
/// clients.
///
/// ```
/// # use chassis_core::Result;
/// # use chassis_data::Tx;
/// # use chassis_messaging::saga::{Failure, SagaDefinition, StepInfo};
/// # use std::time::Duration;
/// # type Data = u32;
/// # type Clients = ();
/// async fn hold(_: Clients, data: Data, _: StepInfo) -> Result<Data> { Ok(data) }
/// async fn release(_: Clients, data: Data, _: StepInfo) -> Result<Data> { Ok(data) }
/// async fn confirm(_: Clients, _: &mut Tx, data: Data) -> Result<Data> { Ok(data) }
/// async fn finish(_: Clients, _: &mut Tx, data: Data) -> Result<Data> { Ok(data) }
/// async fn cancel(_: Clients, _: &mut Tx, _: Data, _: Failure) -> Result<()> { Ok(()) }
///
/// let definition = SagaDefinition::<Data, Clients>::new("greet", 1)
///     .step("hold", hold, release)
///     .pivot("confirm", confirm)
///     .wait_for("heard", Duration::from_secs(60))
///     .local("finish", finish)
///     .on_cancelled(cancel);
/// # definition.validate().unwrap();
/// ```
pub struct SagaDefinition<D, S, B: Backend = sqlx::Any> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) steps: Vec<StepDefinition<D, S, B>>,
    pub(crate) cancelled: Option<Arc<dyn DynCancelStep<D, S, B>>>,
    pub(crate) plan: Vec<Kind>,
    /// How many second starts for a key may wait; 0 refuses them.
    pub(crate) queue: u32,
    /// Fields of the data that are not shown.
    pub(crate) private: Vec<&'static str>,
}

impl<D: 'static, S: 'static, B: Backend> SagaDefinition<D, S, B> {
    /// A saga without steps. Raise `version` with each change of the table.
    #[must_use]
    pub fn new(name: &'static str, version: u32) -> Self {
        Self {
            name,
            version,
            steps: Vec::new(),
            cancelled: None,
            plan: Vec::new(),
            queue: 0,
            private: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, kind: Kind, body: Body<D, S, B>) -> Self {
        self.plan.push(kind);
        self.steps.push(StepDefinition { name, body });
        self
    }

    /// A call to somebody else that can be undone. Both run outside any
    /// transaction and at least once: pass [`StepInfo::idempotency_key`] on.
    ///
    /// `undo` gets the data from before a step that may or may not have happened,
    /// so it must find its target by the saga's key or id, and succeed where there
    /// is nothing to undo. A late `run` must then not take effect any more.
    #[must_use]
    pub fn step<R, U, RF, UF>(self, name: &'static str, run: R, undo: U) -> Self
    where
        R: Fn(S, D, StepInfo) -> RF + Send + Sync + 'static,
        U: Fn(S, D, StepInfo) -> UF + Send + Sync + 'static,
        RF: Future<Output = Result<D>> + Send + 'static,
        UF: Future<Output = Result<D>> + Send + 'static,
    {
        let body = Body::Step { run: Arc::new(Function(run)), undo: Arc::new(Function(undo)) };
        self.with(name, Kind::Step, body)
    }

    /// A call to somebody else with nothing to undo, such as a question.
    #[must_use]
    pub fn action<R, RF>(self, name: &'static str, run: R) -> Self
    where
        R: Fn(S, D, StepInfo) -> RF + Send + Sync + 'static,
        RF: Future<Output = Result<D>> + Send + 'static,
    {
        self.with(name, Kind::Action, Body::Action { run: Arc::new(Function(run)) })
    }

    /// The point of no return: from here on the saga is finished, not undone. It
    /// runs in the transaction that writes the progress, so it happens once.
    #[must_use]
    pub fn pivot<R>(self, name: &'static str, run: R) -> Self
    where
        R: for<'a> TxStep<'a, D, S, B>,
    {
        self.with(name, Kind::Pivot, Body::Pivot { run: Arc::new(Function(run)) })
    }

    /// A change of the service's own data, in the transaction that writes the
    /// progress, so it happens once.
    #[must_use]
    pub fn local<R>(self, name: &'static str, run: R) -> Self
    where
        R: for<'a> TxStep<'a, D, S, B>,
    {
        self.with(name, Kind::Local, Body::Local { run: Arc::new(Function(run)) })
    }

    /// Waits until `event` is signalled under the saga's key. After `timeout` the
    /// saga is undone, or parked if the pivot lies behind.
    #[must_use]
    pub fn wait_for(self, event: &'static str, timeout: Duration) -> Self {
        self.wait_for_with(event, timeout, |data, _| Ok(data))
    }

    /// As [`wait_for`](SagaDefinition::wait_for), and takes the payload of the
    /// signal into the data.
    #[must_use]
    pub fn wait_for_with<M>(self, event: &'static str, timeout: Duration, merge: M) -> Self
    where
        M: Fn(D, serde_json::Value) -> Result<D> + Send + Sync + 'static,
    {
        let body = Body::Wait { merge: Arc::new(merge) };
        self.with(event, Kind::Wait { timeout }, body)
    }

    /// What ends a saga that was undone, in the transaction that says so.
    #[must_use]
    pub fn on_cancelled<C>(mut self, run: C) -> Self
    where
        C: for<'a> CancelStep<'a, D, S, B>,
    {
        self.cancelled = Some(Arc::new(Function(run)));
        self
    }

    /// Lets a start for a key wait while the saga that has the key goes on, at most `limit`
    /// a key, and begin when it has ended. Without this, or with 0, a second start is
    /// refused, whatever became of the first.
    ///
    /// A signal then belongs to the saga that has the key when it comes: what was signalled
    /// before that one ended is gone when the next begins.
    #[must_use]
    pub fn second_start_waits(mut self, limit: u32) -> Self {
        self.queue = limit;
        self
    }

    /// Names top-level fields of the data that nobody is shown, such as tokens: views and
    /// the log have a mark in their place, and so has the row of a saga that has ended.
    /// Until then the database has them as they are, since the steps need them.
    #[must_use]
    pub fn private(mut self, fields: &[&'static str]) -> Self {
        self.private.extend_from_slice(fields);
        self
    }

    pub(super) fn has_waits(&self) -> bool {
        self.plan.iter().any(|kind| matches!(kind, Kind::Wait { .. }))
    }

    /// Checks the table: it has steps, their names differ, there is at most one
    /// pivot, and nothing after it wants to be undone.
    ///
    /// # Errors
    ///
    /// `FAILED_PRECONDITION` with the reason `INVALID_SAGA` and what is wrong.
    pub fn validate(&self) -> Result<()> {
        let wrong = |problem: String| {
            let message = format!("saga {} {}: {problem}", self.name, self.version);
            Err(Error::failed_precondition("INVALID_SAGA", message))
        };
        if self.steps.is_empty() {
            return wrong("it has no steps".to_owned());
        }
        let mut names = HashSet::new();
        if let Some(step) = self.steps.iter().find(|step| !names.insert(step.name)) {
            return wrong(format!("two steps are called {}", step.name));
        }
        for (index, (kind, step)) in self.plan.iter().zip(&self.steps).enumerate() {
            if past_pivot(&self.plan, index) && matches!(kind, Kind::Pivot | Kind::Step) {
                let name = step.name;
                return wrong(match kind {
                    Kind::Pivot => format!("{name} is a second pivot"),
                    _ => format!("{name} is after the pivot and never undone: make it an action"),
                });
            }
        }
        Ok(())
    }
}
