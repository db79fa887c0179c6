//! What an operator may ask a running service to do, beyond probes and metrics.
//!
//! A component knows what can be done with it: a saga runner can show and resume sagas, a
//! consumer can give a dead letter another chance. It cannot serve HTTP, since it must not
//! know the transport. So it registers operations by name here, JSON in and JSON out, and the
//! admin port offers them all in one way: `GET /ops` lists them, `GET /ops/NAME` asks,
//! `POST /ops/NAME` changes something.

use std::{borrow::Cow, collections::BTreeMap, future::Future, sync::Arc};

use parking_lot::RwLock;
use serde::Serialize;
use serde_json::Value;

use crate::{BoxFuture, Error, Result};

type Run = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value>> + Send + Sync>;

/// An operation as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperationInfo {
    /// Its name, a path such as `sagas/checkout/show`.
    pub name: Cow<'static, str>,
    /// What it does and which arguments it takes, in one line.
    pub help: &'static str,
    /// Whether it changes something.
    pub writes: bool,
}

struct Operation {
    help: &'static str,
    writes: bool,
    run: Run,
}

/// The operations of one service. Cheap to clone.
#[derive(Clone, Default)]
pub struct Operations(Arc<RwLock<BTreeMap<Cow<'static, str>, Operation>>>);

impl Operations {
    /// Adds an operation that only looks. Arguments come as a JSON object, whose values are
    /// texts where they come out of a query. A name that is taken is replaced.
    pub fn read<F, Fut>(&self, name: impl Into<Cow<'static, str>>, help: &'static str, run: F)
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        self.add(name.into(), help, false, run);
    }

    /// Adds an operation that changes something. See [`Operations::read`].
    pub fn write<F, Fut>(&self, name: impl Into<Cow<'static, str>>, help: &'static str, run: F)
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        self.add(name.into(), help, true, run);
    }

    fn add<F, Fut>(&self, name: Cow<'static, str>, help: &'static str, writes: bool, run: F)
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        let run: Run = Arc::new(move |args| Box::pin(run(args)));
        self.0.write().insert(name, Operation { help, writes, run });
    }

    /// All operations, by name.
    #[must_use]
    pub fn list(&self) -> Vec<OperationInfo> {
        let info = |(name, operation): (&Cow<'static, str>, &Operation)| OperationInfo {
            name: name.clone(),
            help: operation.help,
            writes: operation.writes,
        };
        self.0.read().iter().map(info).collect()
    }

    /// Runs one; `may_write` is whether the caller came by a way that may change something.
    ///
    /// Dropping the future drops the operation where it stands.
    ///
    /// # Errors
    /// `OPERATION_NOT_FOUND`, `OPERATION_WRITES` where the caller may only look, and those of
    /// the operation itself.
    pub async fn run(&self, name: &str, args: Value, may_write: bool) -> Result<Value> {
        let (run, writes) = match self.0.read().get(name) {
            Some(operation) => (operation.run.clone(), operation.writes),
            None => {
                return Err(Error::not_found(
                    "OPERATION_NOT_FOUND",
                    format!("there is no operation `{name}`; GET /ops lists them"),
                ));
            }
        };
        if writes && !may_write {
            return Err(Error::failed_precondition(
                "OPERATION_WRITES",
                format!("`{name}` changes something; use POST"),
            ));
        }
        if writes {
            tracing::info!(operation = name, "an operator changes something");
        }
        run(args).await
    }
}

/// An argument of an operation as text; a number or boolean is taken as it is written.
///
/// # Errors
/// `ARGUMENT_MISSING` that names it.
pub fn text(args: &Value, name: &'static str) -> Result<String> {
    match &args[name] {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_string()),
        _ => Err(Error::invalid_argument(
            "ARGUMENT_MISSING",
            format!("the argument `{name}` is missing"),
        )
        .with_field(name, "is missing")),
    }
}

/// An argument that may be left out.
///
/// # Errors
/// `ARGUMENT_WRONG` for one that cannot be read as a `T`.
pub fn optional<T: std::str::FromStr>(args: &Value, name: &'static str) -> Result<Option<T>> {
    let given = &args[name];
    if given.is_null() || given == "" {
        return Ok(None);
    }
    text(args, name).ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
        Error::invalid_argument(
            "ARGUMENT_WRONG",
            format!("the argument `{name}` cannot be `{given}`"),
        )
        .with_field(name, "cannot be read")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn operations_are_listed_and_run_and_only_a_write_may_change() {
        let operations = Operations::default();
        operations.read("items/show", "Shows an item: id.", |args| async move {
            Ok(json!({ "id": text(&args, "id")? }))
        });
        operations.write("items/drop", "Drops an item: id.", |_| async { Ok(json!(true)) });
        let names: Vec<_> = operations.list().into_iter().map(|info| info.name).collect();
        assert_eq!(names, ["items/drop", "items/show"]);
        let shown = operations.run("items/show", json!({ "id": 7 }), false).await.unwrap();
        assert_eq!(shown, json!({ "id": "7" }));
        let reason = |result: Result<Value>| result.unwrap_err().reason().to_owned();
        assert_eq!(
            reason(operations.run("items/show", json!({}), false).await),
            "ARGUMENT_MISSING"
        );
        assert_eq!(
            reason(operations.run("items/drop", json!({}), false).await),
            "OPERATION_WRITES"
        );
        assert_eq!(operations.run("items/drop", json!({}), true).await.unwrap(), true);
        assert_eq!(reason(operations.run("nope", json!({}), true).await), "OPERATION_NOT_FOUND");
    }

    #[test]
    fn an_argument_may_be_left_out_but_not_be_wrong() {
        assert_eq!(optional::<u32>(&json!({ "limit": "5" }), "limit").unwrap(), Some(5));
        assert_eq!(optional::<u32>(&json!({}), "limit").unwrap(), None);
        assert_eq!(optional::<u32>(&json!({ "limit": "" }), "limit").unwrap(), None);
        for wrong in [json!("x"), json!([5]), json!({})] {
            let error = optional::<u32>(&json!({ "limit": wrong }), "limit").unwrap_err();
            assert_eq!(error.reason(), "ARGUMENT_WRONG");
        }
    }
}
