//! What the admin port offers for dead letters: `dlq/<group>/…`, JSON in and JSON out.
//!
//! A dead letter is named by its `position`, or by the `id` of its message.

use std::future::Future;

use bytes::Bytes;
use chassis_core::operations::optional;
use chassis_core::{Env, Error, Result};
use serde_json::{Value, json};

use super::handle::{DeadLetters, Pace, Swept};
use super::letter::Filter;

/// Dead letters in a list, if nothing else is asked for.
const LIMIT: usize = 50;

/// Registers the operations of a group.
pub(crate) fn offer(env: &Env, letters: &DeadLetters) {
    let operations = env.operations();
    let name = |what: &str| format!("dlq/{}/{what}", letters.group());
    let counter = |name, help| env.metrics().counter(name, help, &[("group", letters.group())]);
    let redriven = counter("dead_letters_redriven", "Dead letters sent to their topic again.");
    let discarded = counter("dead_letters_discarded", "Dead letters thrown away.");
    operations.read(
        name("list"),
        "Lists dead letters, the oldest first: topic, reason, id, from (a position), limit (50).",
        with(letters, |letters, args| async move {
            let from = optional(&args, "from")?.unwrap_or(0);
            let limit = optional(&args, "limit")?.unwrap_or(LIMIT);
            to_json(letters.list(&filter(&args)?, from, limit).await?)
        }),
    );
    operations.read(
        name("show"),
        "Shows a dead letter with headers and payload: position or id.",
        with(letters, |letters, args| async move {
            to_json(letters.show(one(&letters, &args).await?).await?)
        }),
    );
    operations.write(
        name("edit"),
        "Replaces the payload of a dead letter: position or id; payload, as JSON or text.",
        with(letters, |letters, args| async move {
            let payload = payload(&args)?;
            let letter = letters.edit(one(&letters, &args).await?, payload).await?;
            Ok(json!({ "done": 1, "letter": letter }))
        }),
    );
    operations.write(
        name("redrive"),
        "Sends dead letters to their topic again: position, id, topic, reason or all=true; \
         rate (10 a second), limit (100).",
        with(letters, move |letters, args| {
            let redriven = redriven.clone();
            async move {
                let swept = match position(&args)? {
                    Some(at) => letters.redrive(at).await.map(|()| one_done())?,
                    None => letters.redrive_all(&chosen(&args)?, pace(&args, None)?).await?,
                };
                redriven.add(swept.done as u64);
                to_json(swept)
            }
        }),
    );
    operations.write(
        name("discard"),
        "Throws dead letters away: position, id, topic, reason or all=true; limit (100).",
        with(letters, move |letters, args| {
            let discarded = discarded.clone();
            async move {
                let swept = match position(&args)? {
                    Some(at) => letters.discard(at).await.map(|()| one_done())?,
                    None => {
                        let pace = pace(&args, Some(u32::MAX))?;
                        letters.discard_all(&chosen(&args)?, pace).await?
                    }
                };
                discarded.add(swept.done as u64);
                to_json(swept)
            }
        }),
    );
}

/// An operation with a handle of its own.
fn with<F, Fut>(letters: &DeadLetters, run: F) -> impl Fn(Value) -> Fut + Send + Sync + 'static
where
    F: Fn(DeadLetters, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value>> + Send + 'static,
{
    let letters = letters.clone();
    move |args| run(letters.clone(), args)
}

/// The position of the one dead letter that the arguments name.
async fn one(letters: &DeadLetters, args: &Value) -> Result<u64> {
    if let Some(position) = position(args)? {
        return Ok(position);
    }
    let filter = filter(args)?;
    if filter.id.is_none() {
        return Err(missing("name the dead letter by `position` or `id`"));
    }
    let found = letters.list(&filter, 0, 2).await?.letters;
    match &found[..] {
        [one] => Ok(one.position),
        [] => Err(Error::not_found(
            "DEAD_LETTER_NOT_FOUND",
            "no dead letter has this id; `list` shows those that there are",
        )),
        _ => Err(Error::failed_precondition(
            "WHICH_DEAD_LETTER",
            "several dead letters have this id; name one by `position`",
        )),
    }
}

fn position(args: &Value) -> Result<Option<u64>> {
    optional(args, "position")
}

fn filter(args: &Value) -> Result<Filter> {
    Ok(Filter {
        topic: optional(args, "topic")?,
        reason: optional(args, "reason")?,
        id: optional(args, "id")?,
    })
}

/// A filter that says something: nobody should throw everything away by a slip.
fn chosen(args: &Value) -> Result<Filter> {
    let filter = filter(args)?;
    if filter == Filter::default() && optional(args, "all")? != Some(true) {
        return Err(missing("say which: `position`, `id`, `topic`, `reason` or `all=true`"));
    }
    Ok(filter)
}

fn pace(args: &Value, rate: Option<u32>) -> Result<Pace> {
    let Pace { limit, per_second, within } = Pace::default();
    let limit = optional(args, "limit")?.unwrap_or(limit);
    let per_second = optional(args, "rate")?.or(rate).unwrap_or(per_second);
    Ok(Pace { limit, per_second, within })
}

/// The new payload. A text stands for itself, also one that is JSON.
fn payload(args: &Value) -> Result<Bytes> {
    match &args["payload"] {
        Value::Null => Err(missing("the argument `payload` is missing")),
        Value::String(text) => Ok(text.clone().into()),
        json => serde_json::to_vec(json).map(Bytes::from).map_err(Error::internal),
    }
}

fn one_done() -> Swept {
    Swept { done: 1, ..Swept::default() }
}

fn missing(message: &'static str) -> Error {
    Error::invalid_argument("ARGUMENT_MISSING", message)
}

fn to_json(answer: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(answer).map_err(Error::internal)
}
