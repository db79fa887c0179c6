//! What an operator may ask of an outbox: look, cancel, try again, discard, replay.

use chassis_core::config::duration;
use chassis_core::{Env, Error, Result, operations};
use chassis_data::Backend;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde_json::{Value, json};

use super::clock::DbTime;
use super::handle::Outbox;
use super::table::Table;
use crate::message::Message;

/// Parked rows that a list shows where no number is asked for.
const LIST: u32 = 100;
/// The most that a list shows.
const LONGEST_LIST: u32 = 1000;

/// Which parked rows are meant.
enum Which {
    All,
    One(i64),
}

/// Offers the operations of `outbox` at the admin port.
pub(crate) fn offer<B: Backend>(outbox: &Outbox<B>, env: &Env) {
    let operations = env.operations();
    let at = outbox.clone();
    operations.read(
        "outbox/status",
        "Shows how many rows wait and for how long, and which relay holds which partitions.",
        move |_| status(at.clone()),
    );
    let at = outbox.clone();
    operations.read(
        "outbox/pending",
        "Lists messages that wait, without their content: limit (100).",
        move |args| {
            let at = at.clone();
            async move {
                let limit = operations::optional(&args, "limit")?.unwrap_or(LIST);
                let pending = at.pending(limit.min(LONGEST_LIST)).await?;
                Ok(pending.iter().map(describe).collect())
            }
        },
    );
    let at = outbox.clone();
    operations.read(
        "outbox/delayed",
        "Lists messages that are to be published later, the next one first: limit (100).",
        move |args| {
            let at = at.clone();
            async move {
                let limit = operations::optional(&args, "limit")?.unwrap_or(LIST);
                let delayed = at.delayed(limit.min(LONGEST_LIST)).await?;
                serde_json::to_value(delayed).map_err(Error::internal)
            }
        },
    );
    let at = outbox.clone();
    operations.write(
        "outbox/cancel",
        "Removes a message that is to be published later, so that it never is: id.",
        move |args| {
            let at = at.clone();
            async move {
                let id = operations::text(&args, "id")?;
                let mut tx = at.db.begin().await?;
                let cancelled = at.cancel(&mut tx, &id).await?;
                tx.commit().await?;
                if !cancelled {
                    return Err(Error::not_found(
                        "ROW_NOT_DELAYED",
                        format!("no message {id} is to be published later"),
                    ));
                }
                Ok(json!({ "rows": 1 }))
            }
        },
    );
    let at = outbox.clone();
    operations.read(
        "outbox/parked",
        "Lists the rows that were given up, oldest first: limit (100).",
        move |args| {
            let at = at.clone();
            async move {
                let limit = operations::optional(&args, "limit")?.unwrap_or(LIST);
                let parked = at.parked(limit.min(LONGEST_LIST)).await?;
                serde_json::to_value(parked).map_err(Error::internal)
            }
        },
    );
    let at = outbox.clone();
    operations.write(
        "outbox/retry",
        "Publishes parked rows again: seq (a number, or `all`).",
        move |args| {
            let at = at.clone();
            async move {
                let rows = match which(&args)? {
                    Which::All => at.retry_all_parked().await?,
                    Which::One(seq) => found(seq, at.retry_parked(seq).await?)?,
                };
                Ok(json!({ "rows": rows }))
            }
        },
    );
    let at = outbox.clone();
    operations.write(
        "outbox/discard",
        "Removes parked rows for good: seq (a number, or `all`).",
        move |args| {
            let at = at.clone();
            async move {
                let rows = match which(&args)? {
                    Which::All => at.discard_all_parked().await?,
                    Which::One(seq) => found(seq, at.discard_parked(seq).await?)?,
                };
                Ok(json!({ "rows": rows }))
            }
        },
    );
    let at = outbox.clone();
    operations.write(
        "outbox/replay",
        "Publishes again what was published since then: since (10m, or unix milliseconds).",
        move |args| {
            let at = at.clone();
            async move {
                let since = operations::text(&args, "since")?;
                let rows = match since.parse::<i64>() {
                    Ok(since) => at.replay_since(since).await?,
                    Err(_) => at.replay(read_age(&since)?).await?,
                };
                Ok(json!({ "rows": rows }))
            }
        },
    );
}

async fn status<B: Backend>(outbox: Outbox<B>) -> Result<Value> {
    let now = DbTime::new(outbox.db.clone(), outbox.clock.clone()).read().await?;
    let table = Table::shared(outbox.db);
    let backlog = table.backlog().await?;
    let mut relays: std::collections::BTreeMap<String, Vec<i64>> = Default::default();
    let mut free = Vec::new();
    for lease in table.leases().await? {
        if lease.owner.is_empty() || lease.expires_at <= now {
            free.push(lease.part);
        } else {
            relays.entry(lease.owner).or_default().push(lease.part);
        }
    }
    Ok(json!({
        "depth": backlog.rows,
        "oldest_age_ms": backlog.oldest.map(|time| now.saturating_sub(time).max(0)),
        "parked": backlog.parked,
        "partitions": { "held": relays, "free": free },
    }))
}

fn describe(message: &Message) -> Value {
    json!({
        "id": message.id,
        "topic": message.topic,
        "type": message.kind,
        "key": message.key,
        "time": message.time,
        "bytes": message.size(),
    })
}

fn which(args: &Value) -> Result<Which> {
    let text = operations::text(args, "seq")?;
    if text == "all" {
        return Ok(Which::All);
    }
    text.parse().map(Which::One).map_err(|_| wrong("seq", "must be a number or `all`"))
}

fn found(seq: i64, found: bool) -> Result<u64> {
    if found {
        return Ok(1);
    }
    Err(Error::not_found("ROW_NOT_PARKED", format!("there is no parked row {seq}")))
}

fn read_age(text: &str) -> Result<std::time::Duration> {
    duration::deserialize(IntoDeserializer::<ValueError>::into_deserializer(text))
        .map_err(|_| wrong("since", "must be a duration such as 10m, or unix milliseconds"))
}

fn wrong(argument: &'static str, problem: &'static str) -> Error {
    Error::invalid_argument("ARGUMENT_WRONG", format!("the argument `{argument}` {problem}"))
        .with_field(argument, problem)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        assert!(matches!(which(&json!({ "seq": "7" })), Ok(Which::One(7))));
        assert!(matches!(which(&json!({ "seq": "all" })), Ok(Which::All)));
        assert!(which(&json!({ "seq": "some" })).is_err());
        assert!(which(&json!({})).is_err());
        assert_eq!(read_age("10m").unwrap(), Duration::from_secs(600));
        assert!(read_age("ten").is_err());
    }
}
