//! The parts of one answer, run at once as far as they do not wait for each other.

use std::collections::BTreeMap;

use chassis_core::{Code, Context, Deadline, Error, Result};
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Map, Value, json};

use super::{
    MISSING,
    part::{Part, PartRequest},
};

/// The reason of a part that was not fetched because one before it is missing.
const NEEDS_MISSING_PART: &str = "NEEDS_MISSING_PART";

/// How a part ended.
enum Outcome {
    Value(Value),
    Missing(String),
}

/// Fetches all parts and puts the answer together.
///
/// Dropping it cancels the parts that are under way.
///
/// # Errors
/// That of the first required part that fails; the others are cancelled then.
pub(super) async fn run(parts: &[(&'static str, Part)], request: PartRequest) -> Result<Value> {
    let context = Context::current();
    let mut done: BTreeMap<&'static str, Outcome> = BTreeMap::new();
    let mut waiting: Vec<&(&'static str, Part)> = parts.iter().collect();
    let mut running = FuturesUnordered::new();
    loop {
        // A part comes only after parts added before it, so this ends, and in one pass.
        waiting.retain(|(name, part)| match readiness(part, &done) {
            Readiness::Wait => true,
            Readiness::Never => {
                done.insert(name, Outcome::Missing(NEEDS_MISSING_PART.to_owned()));
                false
            }
            Readiness::Now(values) => {
                running.push(fetch(&context, name, part, request.with_values(values)));
                false
            }
        });
        match running.next().await {
            None => break,
            Some((name, _, Ok(value))) => {
                done.insert(name, Outcome::Value(value));
            }
            Some((_, true, Err(error))) => return Err(error),
            Some((name, false, Err(error))) => {
                missed(&context, name, &error);
                done.insert(name, Outcome::Missing(error.reason().to_owned()));
            }
        }
    }
    Ok(assemble(parts, done))
}

enum Readiness {
    Now(BTreeMap<&'static str, Value>),
    Wait,
    Never,
}

fn readiness(part: &Part, done: &BTreeMap<&'static str, Outcome>) -> Readiness {
    let mut values = BTreeMap::new();
    for before in &part.after {
        match done.get(before) {
            None => return Readiness::Wait,
            Some(Outcome::Missing(_)) => return Readiness::Never,
            Some(Outcome::Value(value)) => {
                values.insert(*before, value.clone());
            }
        }
    }
    Readiness::Now(values)
}

async fn fetch(
    context: &Context,
    name: &'static str,
    part: &Part,
    request: PartRequest,
) -> (&'static str, bool, Result<Value>) {
    // A tenth of what is left is kept for putting the answer together: a part that hangs must
    // not take the others with it.
    let left = context.deadline().map(|deadline| deadline.remaining().mul_f64(0.9));
    let deadline = Deadline::after(left.map_or(part.within, |left| left.min(part.within)));
    let scoped = context.clone().with_deadline(deadline).scope((part.fetch)(request));
    let result = match deadline.run(scoped).await {
        Ok(result) => result,
        Err(late) => Err(Error::new(
            Code::DeadlineExceeded,
            "PART_TIMEOUT",
            "a part of the answer took too long",
        )
        .with_source(late)),
    };
    (name, part.required, result)
}

fn missed(context: &Context, part: &'static str, error: &Error) {
    context
        .env()
        .metrics()
        .counter("gateway_missing_parts", "Optional parts that were missing.", &[("part", part)])
        .inc();
    tracing::warn!(
        part,
        error.code = error.code().as_str(),
        error.reason = error.reason(),
        error.chain = error.chain(),
        "a part of the answer is missing"
    );
}

fn assemble(parts: &[(&'static str, Part)], mut done: BTreeMap<&'static str, Outcome>) -> Value {
    let mut answer = Map::new();
    let mut missing = Vec::new();
    for (name, _) in parts {
        let value = match done.remove(name) {
            Some(Outcome::Value(value)) => value,
            Some(Outcome::Missing(reason)) => {
                missing.push(json!({ "part": name, "reason": reason }));
                Value::Null
            }
            None => Value::Null,
        };
        answer.insert((*name).to_owned(), value);
    }
    answer.insert(MISSING.to_owned(), missing.into());
    answer.into()
}
