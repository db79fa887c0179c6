//! What is logged, changeable while the process runs, for a limited time.
//!
//! Whoever looks for a fault wants `debug` now and forgets to take it back. So each change
//! has an end, and then the configured filter holds again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::{Error, Operations, Result, operations};

/// How long a change holds if nobody says.
const USUAL: Duration = Duration::from_secs(10 * 60);
/// How long it may hold at most.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The filter of the process's log.
pub(super) struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: String,
    change: Mutex<Change>,
}

#[derive(Default)]
struct Change {
    /// Counts changes, so that the end of an older one does not undo a newer one.
    number: u64,
    /// The filter that holds instead of the configured one, and until when.
    now: Option<(String, SystemTime)>,
}

/// Reads a filter in the syntax of `RUST_LOG`.
fn parse(filter: &str, name: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(filter).map_err(|error| {
        Error::invalid_argument(
            "LOG_FILTER",
            format!("{name} `{filter}` is malformed: {error}; write it as `info,my_crate=debug`"),
        )
    })
}

impl LogFilter {
    /// The filter, and the layer that it controls.
    pub(super) fn new(
        filter: &str,
    ) -> Result<(Arc<LogFilter>, reload::Layer<EnvFilter, Registry>)> {
        let (layer, handle) = reload::Layer::new(parse(filter, "telemetry.log_filter")?);
        let change = Mutex::default();
        Ok((Arc::new(LogFilter { handle, configured: filter.to_owned(), change }), layer))
    }

    /// Lets an operator look at it and change it.
    pub(super) fn offer(self: &Arc<Self>, to: &Operations) {
        let filter = self.clone();
        to.read(
            "loglevel/show",
            "Shows what is logged, and until when if it was changed.",
            move |_| {
                let shown = filter.show();
                async move { Ok(shown) }
            },
        );
        let filter = self.clone();
        to.write(
            "loglevel/set",
            "Changes what this process logs for a while: filter (as RUST_LOG), for (10m; at most 24h).",
            move |args| {
                let filter = filter.clone();
                async move {
                    let time = operations::optional::<humantime::Duration>(&args, "for")?;
                    let time = time.map_or(USUAL, Into::into);
                    filter.set(&operations::text(&args, "filter")?, time)?;
                    Ok(filter.show())
                }
            },
        );
        let filter = self.clone();
        to.write("loglevel/reset", "Lets the configured filter hold again.", move |_| {
            let filter = filter.clone();
            async move {
                filter.reset()?;
                Ok(filter.show())
            }
        });
    }

    fn show(&self) -> Value {
        let change = self.change.lock();
        let (filter, until) = match &change.now {
            Some((filter, until)) => {
                (filter, Some(humantime::format_rfc3339_seconds(*until).to_string()))
            }
            None => (&self.configured, None),
        };
        json!({ "filter": filter, "until": until, "configured": self.configured })
    }

    /// Must be called inside a tokio runtime, which ends the change.
    fn set(self: &Arc<Self>, filter: &str, time: Duration) -> Result<()> {
        if time.is_zero() || time > LONGEST {
            return Err(Error::invalid_argument(
                "ARGUMENT_WRONG",
                "the argument `for` is more than 0s and at most 24h",
            )
            .with_field("for", "is out of range"));
        }
        let parsed = parse(filter, "the filter")?;
        let number = {
            let mut change = self.change.lock();
            self.apply(parsed)?;
            change.number += 1;
            change.now = Some((filter.to_owned(), SystemTime::now() + time));
            change.number
        };
        // Written whatever the new filter is: whoever reads the log must know.
        tracing::error!(target: "chassis_core::telemetry", filter, time = ?time, "the log filter was changed");
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let Some(this) = this.upgrade() else { return };
            if this.change.lock().number == number
                && let Err(error) = this.reset()
            {
                tracing::error!(error = error.chain(), "the log filter could not be set back");
            }
        });
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        let mut change = self.change.lock();
        self.apply(parse(&self.configured, "telemetry.log_filter")?)?;
        change.number += 1;
        change.now = None;
        Ok(())
    }

    fn apply(&self, filter: EnvFilter) -> Result<()> {
        self.handle
            .reload(filter)
            .map_err(|error| Error::internal("the log filter cannot be changed").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_by_itself_and_not_before_a_newer_one() {
        let (filter, layer) = LogFilter::new("info").unwrap();
        let _guard = tracing::subscriber::set_default(Registry::default().with(layer));
        let operations = Operations::default();
        filter.offer(&operations);
        let is_debug = || tracing::enabled!(target: "items", tracing::Level::DEBUG);
        let set = |filter: &'static str, time: &'static str| {
            operations.run("loglevel/set", json!({ "filter": filter, "for": time }), true)
        };
        assert!(!is_debug());
        set("debug", "1m").await.unwrap();
        assert!(is_debug());
        tokio::time::sleep(Duration::from_secs(50)).await;
        let shown = set("info,items=debug", "1m").await.unwrap();
        assert_eq!(shown["filter"], "info,items=debug");
        assert_eq!(shown["configured"], "info");
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(is_debug(), "the end of the first change undid the second");
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(!is_debug());
        set("trace", "1h").await.unwrap();
        let shown = operations.run("loglevel/reset", json!({}), true).await.unwrap();
        assert_eq!((&shown["filter"], &shown["until"]), (&"info".into(), &Value::Null));
        assert!(!is_debug());
    }

    #[tokio::test]
    async fn a_malformed_filter_or_time_changes_nothing() {
        let (filter, _layer) = LogFilter::new("info").unwrap();
        let operations = Operations::default();
        filter.offer(&operations);
        for (args, reason) in [
            (json!({ "filter": "a=b=c" }), "LOG_FILTER"),
            (json!({ "filter": "debug", "for": "soon" }), "ARGUMENT_WRONG"),
            (json!({ "filter": "debug", "for": "0s" }), "ARGUMENT_WRONG"),
            (json!({ "filter": "debug", "for": "25h" }), "ARGUMENT_WRONG"),
            (json!({}), "ARGUMENT_MISSING"),
        ] {
            let error = operations.run("loglevel/set", args, true).await.unwrap_err();
            assert_eq!(error.reason(), reason);
        }
        assert_eq!(filter.show()["filter"], "info");
    }
}
