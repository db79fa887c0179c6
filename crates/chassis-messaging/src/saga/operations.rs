//! What the admin port offers for sagas: `sagas/<definition>/…`, JSON in and JSON out.
//!
//! A saga is named by `id`, by its business `key`, or by `saga`, which may be either.

use std::future::Future;

use chassis_core::operations::{optional, text};
use chassis_core::{BoxFuture, Env, Error, Result};
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
        "Lists the newest sagas: state, limit (50), before (the `next` of the page before).",
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
    let hand = ByHand { env: env.clone(), saga: sagas.current().name.to_owned() };
    operations.write(
        name("retry"),
        "Lets a saga go on that is parked or between two tries: id, key or saga.",
        with(
            sagas,
            hand.moves("retry", |sagas: Sagas<D, S, B>, args| async move {
                let id = sagas.named(&args).await?;
                sagas.retry(&id).await
            }),
        ),
    );
    operations.write(
        name("skip"),
        "Counts the step as done at which a saga is stuck: id, key or saga; reason.",
        with(
            sagas,
            hand.moves("skip", |sagas: Sagas<D, S, B>, args| async move {
                let id = sagas.named(&args).await?;
                sagas.skip(&id, &reason(&args)?).await
            }),
        ),
    );
    operations.write(
        name("compensate"),
        "Begins to undo a saga before its pivot: id, key or saga; reason.",
        with(
            sagas,
            hand.moves("compensate", |sagas: Sagas<D, S, B>, args| async move {
                let id = sagas.named(&args).await?;
                sagas.compensate(&id, &reason(&args)?).await
            }),
        ),
    );
}

/// Counts what people do to sagas.
#[derive(Clone)]
struct ByHand {
    env: Env,
    saga: String,
}

impl ByHand {
    /// An operation that moves a saga, which is counted where it does.
    fn moves<T, F, Fut>(
        &self,
        name: &'static str,
        run: F,
    ) -> impl Fn(T, Value) -> BoxFuture<'static, Result<Value>> + Send + Sync + 'static
    where
        F: Fn(T, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SagaView>> + Send + 'static,
    {
        let hand = self.clone();
        move |sagas, args| {
            let (hand, moved) = (hand.clone(), run(sagas, args));
            Box::pin(async move {
                let view = moved.await?;
                hand.count(name, &view);
                to_json(view)
            })
        }
    }

    fn count(&self, name: &'static str, view: &SagaView) {
        let (metrics, saga) = (self.env.metrics(), self.saga.as_str());
        let help = "Sagas that a person moved, by what was done.";
        metrics.counter("saga_by_hand", help, &[("saga", saga), ("move", name)]).inc();
        if view.state.has_ended() {
            let help = "Sagas that a person moved to their end.";
            let labels = [("saga", saga), ("state", view.state.as_str())];
            metrics.counter("saga_ended_by_hand", help, &labels).inc();
        }
    }
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
        let limit = optional(args, "limit")?.unwrap_or(LIMIT).clamp(1, MAX_LIMIT);
        let before = optional::<String>(args, "before")?.map(SagaId::from);
        // One more than is shown tells whether there is another page.
        let mut sagas = self.list_before(before.as_ref(), state, limit + 1).await?;
        let more = sagas.len() > limit as usize;
        sagas.truncate(limit as usize);
        let next = sagas.last().filter(|_| more).map(|saga| saga.id.clone());
        let lines: Vec<Value> = sagas.iter().map(line).collect();
        Ok(match next {
            Some(next) => json!({ "sagas": lines, "next": next }),
            None => json!({ "sagas": lines }),
        })
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
