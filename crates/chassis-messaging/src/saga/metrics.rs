//! What sagas show: how many are where, and how their steps and they themselves end.

use chassis_core::{Counter, Env, Gauge};

use super::progress::{Happening, Next, SagaState};

/// Counters of what a turn does.
#[derive(Clone)]
pub(super) struct TurnMetrics {
    done: Counter,
    retried: Counter,
    failed: Counter,
    undone: Counter,
    completed: Counter,
    cancelled: Counter,
    pub(super) parked: Counter,
}

impl TurnMetrics {
    pub(super) fn new(env: &Env, saga: &str) -> Self {
        let step = |outcome| {
            let labels = [("saga", saga), ("outcome", outcome)];
            env.metrics().counter("saga_steps", "Steps of sagas, by how they ended.", &labels)
        };
        let end = |state| {
            let labels = [("saga", saga), ("state", state)];
            env.metrics().counter("saga_ended", "Sagas that ended or were parked.", &labels)
        };
        Self {
            done: step("done"),
            retried: step("retried"),
            failed: step("failed"),
            undone: step("undone"),
            completed: end("completed"),
            cancelled: end("cancelled"),
            parked: end("parked"),
        }
    }

    pub(super) fn count(&self, next: &Next) {
        match next.happening {
            Happening::Done => self.done.inc(),
            Happening::Retrying => self.retried.inc(),
            Happening::Undone => self.undone.inc(),
            Happening::Failed | Happening::TimedOut => self.failed.inc(),
            Happening::Parked | Happening::Cancelled => {}
        }
        match next.position.state {
            SagaState::Completed => self.completed.inc(),
            SagaState::Cancelled => self.cancelled.inc(),
            SagaState::Parked => self.parked.inc(),
            SagaState::Running | SagaState::Compensating | SagaState::Queued => {}
        }
    }
}

/// How many instances are in each state that has not ended, and how old they are.
pub(super) struct Census(Vec<(SagaState, Gauge, Gauge)>);

impl Census {
    pub(super) fn new(env: &Env, saga: &str) -> Self {
        use SagaState::{Compensating, Parked, Queued, Running};
        let gauges = |state: SagaState| {
            let labels = [("saga", saga), ("state", state.as_str())];
            let metrics = env.metrics();
            (
                state,
                metrics.gauge("saga_instances", "Sagas that have not ended.", &labels),
                metrics.gauge(
                    "saga_oldest_age_seconds",
                    "Time since the start of the oldest saga in this state; 0 if there is none.",
                    &labels,
                ),
            )
        };
        Self([Running, Compensating, Parked, Queued].map(gauges).into())
    }

    /// `found`: state, count and the start of the oldest.
    pub(super) fn set(&self, found: &[(SagaState, i64, i64)], now: i64) {
        for (state, count, age) in &self.0 {
            let here = found.iter().find(|(of, ..)| of == state);
            count.set(here.map_or(0, |(_, count, _)| *count));
            age.set(here.map_or(0, |(.., oldest)| now.saturating_sub(*oldest).max(0) / 1000));
        }
    }
}
