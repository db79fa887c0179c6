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
            SagaState::Running | SagaState::Compensating => {}
        }
    }
}

/// How many instances are in each state that has not ended.
pub(super) struct Counts(pub(super) [(SagaState, Gauge); 3]);

impl Counts {
    pub(super) fn new(env: &Env, saga: &str) -> Self {
        let gauge = |state: SagaState| {
            let labels = [("saga", saga), ("state", state.as_str())];
            (state, env.metrics().gauge("saga_instances", "Sagas that have not ended.", &labels))
        };
        Self([gauge(SagaState::Running), gauge(SagaState::Compensating), gauge(SagaState::Parked)])
    }
}
