//! The log lines of a test, as data.
//!
//! They are made by the same layer that a service logs with, so a test sees the fields that
//! an operator sees.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use chassis_core::telemetry::{LineSink, LogLayer};
use serde_json::Value;
use tracing::{
    Dispatch, Level,
    subscriber::{DefaultGuard, NoSubscriber},
};
use tracing_subscriber::{Registry, filter::LevelFilter, layer::SubscriberExt};

/// How many lines are kept; older ones are forgotten.
const KEPT: usize = 10_000;

/// Collects log lines from the moment it is made.
#[derive(Clone, Default)]
pub struct CapturedLogs(Arc<Lines>);

#[derive(Default)]
struct Lines(Mutex<VecDeque<Value>>);

impl LineSink for Lines {
    fn write_line(&self, line: &[u8]) {
        let value = serde_json::from_slice(line)
            .unwrap_or_else(|error| panic!("a log line is not JSON: {error}"));
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(value);
    }
}

impl CapturedLogs {
    /// Captures what this thread logs at this level or above, until the guard is dropped.
    ///
    /// Enough for a test on tokio's current-thread runtime, whose tasks all run here.
    #[must_use]
    pub fn on_this_thread(level: Level) -> (CapturedLogs, DefaultGuard) {
        // With one subscriber in the process, tracing asks the thread that comes first to a
        // line of code whether anybody wants it, and that may be another test's. With two it
        // asks every time.
        static SECOND: LazyLock<Dispatch> =
            LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
        LazyLock::force(&SECOND);
        let logs = CapturedLogs::default();
        let layer = LogLayer::json(logs.0.clone());
        let subscriber = Registry::default().with(LevelFilter::from_level(level)).with(layer);
        (logs, tracing::subscriber::set_default(subscriber))
    }

    /// Captures what the whole process logs at this level or above, from now on.
    ///
    /// # Panics
    /// When the process has a subscriber already: only one test of a binary can do this.
    #[must_use]
    pub fn everywhere(level: Level) -> CapturedLogs {
        let logs = CapturedLogs::default();
        let layer = LogLayer::json(logs.0.clone());
        let subscriber = Registry::default().with(LevelFilter::from_level(level)).with(layer);
        if let Err(error) = tracing::subscriber::set_global_default(subscriber) {
            panic!("logs cannot be captured everywhere: {error}");
        }
        logs
    }

    /// The lines so far, oldest first: at most the last 10 000.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The lines so far whose field has this value.
    #[must_use]
    pub fn with(&self, field: &str, value: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line.get(field).is_some_and(|found| found == value));
        lines
    }
}

#[cfg(test)]
mod tests {
    use chassis_core::{Context, Env};

    use super::*;

    #[tokio::test]
    async fn a_line_has_the_fields_of_its_context() {
        let (logs, _guard) = CapturedLogs::on_this_thread(Level::INFO);
        let context = Context::background(&Env::test("greeter")).with_request_id("r-1");
        context
            .scope(async {
                tracing::info!(item = 7, "stored");
                tracing::debug!("not kept");
            })
            .await;
        let lines = logs.with("request_id", "r-1");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "stored");
        assert_eq!(lines[0]["service.name"], "greeter");
        assert_eq!(logs.lines().len(), 1);
    }

    #[test]
    fn a_line_that_another_thread_reached_first_is_captured() {
        fn log() {
            tracing::info!("reached");
        }
        let (logs, _guard) = CapturedLogs::on_this_thread(Level::INFO);
        std::thread::spawn(log).join().unwrap();
        assert_eq!(logs.lines().len(), 0);
        log();
        assert_eq!(logs.lines().len(), 1);
    }
}
