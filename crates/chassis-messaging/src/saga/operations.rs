//! What the admin port offers for sagas: `sagas/<definition>/…`, JSON in and JSON out.
//!
//! A saga is named by `id`, by its business `key`, or by `saga`, which may be either.

use std::future::Future;

use chassis_core::operations::{optional, text};
use chassis_core::{Env, Error, Result};
use chassis_data::Backend;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::definition::SagaId;
use super::handle::Sagas;
use super::operator::not_found;
use super::progress::SagaState;
use super::view::SagaView;

/// Sagas in a list, if nothing else is asked for.
const LIMIT: u32 = 50;
/// Sagas in a list at most.
const MAX_LIMIT: u32 = 1000;

/// Registers the operations of these sagas.
pub(super) fn offer<D, S, B>(env: &Env, sagas: &Sagas<D, S, B>)
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    let operations = env.operations();
    let name = |what: &str| format!("sagas/{}/{what}", sagas.current().name);
    operations.read(
        name("list"),
        "Lists the newest sagas: state, limit (50).",
        with(sagas, |sagas, args| async move { sagas.listed(&args).await }),
    );
    operations.read(
        name("show"),
        "Shows a saga: where it is, why it waits, what each step changed. id, key or saga.",
        with(sagas, |sagas, args| async move {
            let id = sagas.named(&args).await?;
            to_json(sagas.show(&id).await?.ok_or_else(|| not_found(sagas.current().name))?)
        }),
    );
    operations.read(
        name("diagram"),
        "Draws the definition as Mermaid, with the place of a saga: id, key or saga, or none.",
        with(sagas, |sagas, args| async move { sagas.drawn(&args).await }),
    );
    operations.write(
        name("retry"),
        "Lets a saga go on that is parked or between two tries: id, key or saga.",
        with(sagas, |sagas, args| async move {
            let id = sagas.named(&args).await?;
            to_json(sagas.retry(&id).await?)
        }),
    );
    operations.write(
        name("skip"),
        "Counts the step as done at which a saga is stuck: id, key or saga; reason.",
        with(sagas, |sagas, args| async move {
            let id = sagas.named(&args).await?;
            to_json(sagas.skip(&id, &reason(&args)?).await?)
        }),
    );
    operations.write(
        name("compensate"),
        "Begins to undo a saga before its pivot: id, key or saga; reason.",
        with(sagas, |sagas, args| async move {
            let id = sagas.named(&args).await?;
            to_json(sagas.compensate(&id, &reason(&args)?).await?)
        }),
    );
}

/// An operation with a handle of its own.
fn with<D, S, B, F, Fut>(
    sagas: &Sagas<D, S, B>,
    run: F,
) -> impl Fn(Value) -> Fut + Send + Sync + 'static
where
    D: Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
    F: Fn(Sagas<D, S, B>, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value>> + Send + 'static,
{
    let sagas = sagas.clone();
    move |args| run(sagas.clone(), args)
}

impl<D, S, B> Sagas<D, S, B>
where
    D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    B: Backend,
{
    /// The saga that the arguments name. An `id` is taken as it is.
    async fn named(&self, args: &Value) -> Result<SagaId> {
        if let Some(id) = optional::<String>(args, "id")? {
            return Ok(SagaId::from(id));
        }
        let key = match optional::<String>(args, "key")? {
            Some(key) => key,
            None => {
                let either = text(args, "saga").map_err(|_| {
                    let message = "name the saga by `id`, `key` or `saga`, which may be either";
                    Error::invalid_argument("ARGUMENT_MISSING", message)
                })?;
                if let Some(found) = self.instance(&SagaId::from(either.as_str())).await? {
                    return Ok(found.id);
                }
                either
            }
        };
        let name = self.current().name;
        let found = self.store.find(name, &key).await?;
        Ok(found.ok_or_else(|| not_found(name).with_detail("key", key))?.id)
    }

    async fn listed(&self, args: &Value) -> Result<Value> {
        let state = match optional::<String>(args, "state")? {
            None => None,
            Some(name) => Some(SagaState::parse(&name).ok_or_else(|| {
                let message = "a state is running, compensating, completed, cancelled, parked or \
                               queued";
                Error::invalid_argument("ARGUMENT_WRONG", message).with_field("state", name)
            })?),
        };
        let limit = optional(args, "limit")?.unwrap_or(LIMIT).min(MAX_LIMIT);
        let sagas = self.list(state, limit).await?;
        Ok(json!({ "sagas": sagas.iter().map(line).collect::<Vec<_>>() }))
    }

    async fn drawn(&self, args: &Value) -> Result<Value> {
        let named = ["id", "key", "saga"].iter().any(|name| !args[*name].is_null());
        if !named {
            return Ok(json!({ "mermaid": self.mermaid() }));
        }
        let name = self.current().name;
        let at = self.named(args).await?;
        let view = self.instance(&at).await?.ok_or_else(|| not_found(name))?;
        let mermaid = self.diagram(&at).await?.ok_or_else(|| {
            let message = format!("this process does not know version {}", view.version);
            Error::failed_precondition("SAGA_VERSION_UNKNOWN", message)
        })?;
        Ok(json!({ "id": at, "key": view.key, "mermaid": mermaid }))
    }
}

fn reason(args: &Value) -> Result<String> {
    Ok(optional(args, "reason")?.unwrap_or_default())
}

/// A saga in a list: no data, no log.
fn line(saga: &SagaView) -> Value {
    json!({
        "id": saga.id,
        "key": saga.key,
        "version": saga.version,
        "state": saga.state,
        "step": saga.step,
        "attempts": saga.attempts,
        "why": saga.why,
        "started_at": saga.started_at,
        "updated_at": saga.updated_at,
    })
}

fn to_json(view: SagaView) -> Result<Value> {
    serde_json::to_value(view).map_err(Error::internal)
}
