//! The door to chaos: rules set, listed and cleared from the admin port.
//!
//! The target of a rule is a client as its metrics name it, such as `inventory/http`, or a route of
//! one, such as `inventory/http/items`; `inventory/*` and `*` are allowed. Whether there may be rules is for the configuration to say, not for who
//! can reach the port: without it each operation says that it is refused.

use std::time::Duration;

use chassis_core::operations::{optional, text};
use chassis_core::{Error, Operations, Result};
use chassis_resilience::chaos::{Chaos, ChaosRefused, Fault, Rule};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Whether faults may be injected into this process's calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChaosConfig {
    /// Off unless it is asked for: a fault injector that can be reached is one more thing
    /// that can break a service.
    pub enabled: bool,
}

impl ChaosConfig {
    /// The chaos of a process, for its clients, with the operations `chaos/list`, `chaos/set`
    /// and `chaos/clear`.
    pub fn chaos(&self, operations: &Operations) -> Chaos {
        let chaos = if self.enabled { Chaos::enabled() } else { Chaos::disabled() };
        let listed = chaos.clone();
        operations.read("chaos/list", "The faults that are injected into calls.", move |_| {
            let chaos = listed.clone();
            async move { list(&chaos) }
        });
        let set_in = chaos.clone();
        operations.write(
            "chaos/set",
            "Injects a fault: name, target (inventory/http, inventory/http/items, inventory/*, *), \
             fault (latency, error, drop, duplicate), share (1.0), least_ms and most_ms \
             (latency), lasts_s (60).",
            move |args| {
                let chaos = set_in.clone();
                async move {
                    let rule = rule(&args)?;
                    chaos.set(text(&args, "name")?, rule).map_err(refused)?;
                    list(&chaos)
                }
            },
        );
        let cleared = chaos.clone();
        operations.write("chaos/clear", "Ends a fault by its name, or all.", move |args| {
            let chaos = cleared.clone();
            async move {
                match optional::<String>(&args, "name")? {
                    Some(name) => {
                        chaos.clear(&name);
                    }
                    None => chaos.clear_all(),
                }
                list(&chaos)
            }
        });
        chaos
    }
}

fn list(chaos: &Chaos) -> Result<Value> {
    if !chaos.is_enabled() {
        return Err(refused(ChaosRefused::Disabled));
    }
    let rules: Vec<Value> = chaos
        .list()
        .into_iter()
        .map(|listed| {
            json!({
                "name": listed.name,
                "target": listed.rule.target,
                "fault": format!("{:?}", listed.rule.fault),
                "share": listed.rule.share,
                "remaining_s": listed.remaining.as_secs(),
                "hits": listed.hits,
            })
        })
        .collect();
    Ok(json!(rules))
}

fn rule(args: &Value) -> Result<Rule> {
    let millis = |name| optional(args, name).map(Option::unwrap_or_default);
    let least = Duration::from_millis(millis("least_ms")?);
    let most = Duration::from_millis(millis("most_ms")?);
    let fault = match text(args, "fault")?.as_str() {
        "latency" => Fault::Latency { least, most: most.max(least) },
        "error" => Fault::Error,
        "drop" => Fault::Drop,
        "duplicate" => Fault::Duplicate,
        other => {
            return Err(Error::invalid_argument(
                "ARGUMENT_WRONG",
                format!("the fault cannot be `{other}`; latency, error, drop or duplicate"),
            ));
        }
    };
    Ok(Rule {
        target: text(args, "target")?,
        share: optional(args, "share")?.unwrap_or(1.0),
        fault,
        lasts: Duration::from_secs(optional(args, "lasts_s")?.unwrap_or(60)),
    })
}

fn refused(error: ChaosRefused) -> Error {
    let message = error.to_string();
    match error {
        ChaosRefused::Disabled => Error::failed_precondition("CHAOS_DISABLED", message),
        ChaosRefused::TooMany { .. } => Error::resource_exhausted("CHAOS_TOO_MANY", message),
        ChaosRefused::OutOfRange { .. } => Error::invalid_argument("ARGUMENT_WRONG", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn set(operations: &Operations, args: Value) -> Result<Value> {
        operations.run("chaos/set", args, true).await
    }

    fn error_for_all() -> Value {
        json!({ "name": "a", "target": "*", "fault": "error", "share": "0.5" })
    }

    #[tokio::test]
    async fn it_is_refused_unless_the_configuration_enables_it() {
        let operations = Operations::default();
        let chaos = ChaosConfig::default().chaos(&operations);
        let error = set(&operations, error_for_all()).await.unwrap_err();
        assert_eq!(error.reason(), "CHAOS_DISABLED");
        assert!(!chaos.is_enabled());
    }

    #[tokio::test]
    async fn rules_are_set_listed_and_cleared() {
        let operations = Operations::default();
        let chaos = ChaosConfig { enabled: true }.chaos(&operations);
        let rules = set(&operations, error_for_all()).await.unwrap();
        assert_eq!(rules[0]["share"], 0.5);
        assert_eq!(chaos.list().len(), 1);
        for (wrong, value) in [("share", json!("2")), ("fault", json!("fire"))] {
            let mut args = error_for_all();
            args[wrong] = value;
            assert_eq!(set(&operations, args).await.unwrap_err().reason(), "ARGUMENT_WRONG");
        }
        operations.run("chaos/clear", json!({}), true).await.unwrap();
        assert!(chaos.list().is_empty());
    }
}
