//! Where a saga goes next: the transition table, without I/O and without a clock.
//!
//! Forward, a saga stands before step `n` of its plan. Backward, it has the steps
//! below `n` still to undo, and `n` is 0 when only the end remains.
//!
//! | stands | before the pivot | after the pivot |
//! |---|---|---|
//! | step done | next step | next step, at the end completed |
//! | fails, worth a retry | again after a pause; undo when tries run out | again after a pause; parked when tries run out |
//! | fails for good | undo | as above: there is no way back |
//! | wait timed out | undo | parked |
//!
//! | undoing | then |
//! |---|---|
//! | undone | the step before it, at the beginning cancelled |
//! | fails, whatever the reason | again after a pause; parked when tries run out |
//!
//! The current step is undone too unless it provably did nothing: a step that
//! timed out, or that was under way when its process died, may have happened.

use std::time::Duration;

use chassis_core::{Code, Error};
use chassis_resilience::retry::Backoff;
use serde::Serialize;

/// What a saga is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SagaState {
    /// It goes forward, or waits to.
    Running,
    /// It undoes what it did.
    Compensating,
    /// It reached its end.
    Completed,
    /// Everything it did was undone.
    Cancelled,
    /// It cannot go on by itself; somebody must look.
    Parked,
    /// It has not begun: it waits until the saga of its key before it has ended.
    Queued,
}

impl SagaState {
    /// The name in the database and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SagaState::Running => "running",
            SagaState::Compensating => "compensating",
            SagaState::Completed => "completed",
            SagaState::Cancelled => "cancelled",
            SagaState::Parked => "parked",
            SagaState::Queued => "queued",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<SagaState> {
        use SagaState::{Cancelled, Compensating, Completed, Parked, Queued, Running};
        [Running, Compensating, Completed, Cancelled, Parked, Queued]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    /// Whether it moves by itself.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, SagaState::Running | SagaState::Compensating)
    }

    /// Whether nothing more will happen to it.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, SagaState::Completed | SagaState::Cancelled)
    }
}

/// What a step of the plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs outside a transaction and can be undone.
    Step,
    /// Runs outside a transaction; there is nothing to undo.
    Action,
    /// The point of no return, in the transaction of the progress.
    Pivot,
    /// In the transaction of the progress.
    Local,
    /// Until a signal comes.
    Wait { timeout: Duration },
}

impl Kind {
    pub(crate) fn can_be_undone(self) -> bool {
        self == Kind::Step
    }
}

/// Where an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) state: SagaState,
    /// Which way it goes; a parked instance keeps it.
    pub(crate) backward: bool,
    pub(crate) step: usize,
    /// Failed tries of the current step.
    pub(crate) attempts: u32,
    /// The current step may have happened although it is not done.
    pub(crate) uncertain: bool,
}

impl Position {
    pub(crate) const START: Position = Position {
        state: SagaState::Running,
        backward: false,
        step: 0,
        attempts: 0,
        uncertain: false,
    };

    pub(super) fn ended(self, state: SagaState) -> Position {
        Position { state, attempts: 0, uncertain: false, ..self }
    }

    fn parked(self) -> Position {
        Position { state: SagaState::Parked, ..self }
    }

    /// It goes on where it stood, with all its tries.
    pub(crate) fn resumed(self) -> Position {
        let state = if self.backward { SagaState::Compensating } else { SagaState::Running };
        Position { state, attempts: 0, ..self }
    }
}

/// What is to be done at a position. The numbers are steps of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Run a step or an action.
    Do(usize),
    /// Run a pivot or a local step in a transaction.
    Commit(usize),
    /// Look for the signal.
    Await(usize),
    /// Undo a step.
    Undo(usize),
    /// End a saga that is undone.
    Cancel,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed {
        /// The same may succeed later.
        retryable: bool,
        /// It may have taken effect all the same.
        happened: bool,
        retry_after: Option<Duration>,
    },
    /// The signal did not come in time.
    TimedOut,
}

impl Outcome {
    pub(crate) fn of(error: &Error) -> Outcome {
        let refused = matches!(
            error.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
        );
        Outcome::Failed {
            retryable: error.code().is_retryable(),
            happened: !refused && !error.was_not_sent(),
            retry_after: error.retry_after(),
        }
    }
}

/// What happened at a transition, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Done,
    Retrying,
    Failed,
    TimedOut,
    Undone,
    Parked,
    Cancelled,
}

impl Happening {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Happening::Done => "done",
            Happening::Retrying => "retrying",
            Happening::Failed => "failed",
            Happening::TimedOut => "timed out",
            Happening::Undone => "undone",
            Happening::Parked => "parked",
            Happening::Cancelled => "cancelled",
        }
    }
}

/// A transition: where to, what it was, and how long to pause before going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) position: Position,
    pub(crate) happening: Happening,
    pub(crate) pause: Duration,
}

/// How often is tried, and how long is paused in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Tries of a step that can still be undone.
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    /// Tries where there is no way back: after the pivot, and while undoing.
    pub(crate) persistent_attempts: u32,
}

/// What is to be done at a position; `None` where nothing is.
pub(crate) fn task(plan: &[Kind], position: &Position) -> Option<Task> {
    match position.state {
        SagaState::Running => {
            let step = position.step;
            plan.get(step).map(|kind| match kind {
                Kind::Step | Kind::Action => Task::Do(step),
                Kind::Pivot | Kind::Local => Task::Commit(step),
                Kind::Wait { .. } => Task::Await(step),
            })
        }
        SagaState::Compensating => {
            Some(position.step.checked_sub(1).map_or(Task::Cancel, Task::Undo))
        }
        SagaState::Completed | SagaState::Cancelled | SagaState::Parked | SagaState::Queued => None,
    }
}

/// Whether the pivot lies behind step `step`.
pub(crate) fn past_pivot(plan: &[Kind], step: usize) -> bool {
    plan.iter().take(step).any(|kind| *kind == Kind::Pivot)
}

/// The transition. `random` is a number from 0 to 1 for the jitter.
pub(crate) fn next(
    plan: &[Kind],
    at: Position,
    outcome: Outcome,
    policy: &Policy,
    random: f64,
) -> Next {
    let now = |position, happening| Next { position, happening, pause: Duration::ZERO };
    if at.backward {
        return match outcome {
            Outcome::Done if at.step == 0 => {
                now(at.ended(SagaState::Cancelled), Happening::Cancelled)
            }
            Outcome::Done => now(undo_below(plan, at.step - 1), Happening::Undone),
            Outcome::Failed { happened, retry_after, .. } => {
                again(at, policy.persistent_attempts, happened, retry_after, policy, random)
                    .unwrap_or_else(|| now(at.parked(), Happening::Parked))
            }
            Outcome::TimedOut => now(at.parked(), Happening::Parked),
        };
    }
    let no_way_back = past_pivot(plan, at.step);
    match outcome {
        Outcome::Done => {
            let step = at.step + 1;
            let moved = Position { step, attempts: 0, uncertain: false, ..at };
            let ended = step >= plan.len();
            now(if ended { moved.ended(SagaState::Completed) } else { moved }, Happening::Done)
        }
        Outcome::TimedOut if no_way_back => now(at.parked(), Happening::Parked),
        Outcome::TimedOut => now(turn_back(plan, at), Happening::TimedOut),
        Outcome::Failed { retryable, happened, retry_after } => {
            let worth = retryable || no_way_back;
            let tries = if no_way_back { policy.persistent_attempts } else { policy.attempts };
            let retry =
                worth.then(|| again(at, tries, happened, retry_after, policy, random)).flatten();
            match retry {
                Some(next) => next,
                None if no_way_back => now(at.parked(), Happening::Parked),
                None => {
                    let uncertain = at.uncertain || happened;
                    now(turn_back(plan, Position { uncertain, ..at }), Happening::Failed)
                }
            }
        }
    }
}

/// One more try after a pause, or `None` when the tries are used up.
fn again(
    at: Position,
    tries: u32,
    happened: bool,
    retry_after: Option<Duration>,
    policy: &Policy,
    random: f64,
) -> Option<Next> {
    let attempts = at.attempts.saturating_add(1);
    (attempts < tries).then(|| Next {
        position: Position { attempts, uncertain: at.uncertain || happened, ..at },
        happening: Happening::Retrying,
        pause: policy.backoff.delay(attempts, random).max(retry_after.unwrap_or_default()),
    })
}

/// From forward to backward; the current step counts if it may have happened.
pub(super) fn turn_back(plan: &[Kind], at: Position) -> Position {
    let below = if at.uncertain { at.step + 1 } else { at.step };
    undo_below(plan, below)
}

/// Backward before the nearest step below `below` that has something to undo.
pub(super) fn undo_below(plan: &[Kind], below: usize) -> Position {
    let step = (0..below.min(plan.len()))
        .rev()
        .find(|&step| plan.get(step).is_some_and(|kind| kind.can_be_undone()))
        .map_or(0, |step| step + 1);
    let state = SagaState::Compensating;
    Position { state, backward: true, step, attempts: 0, uncertain: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAIT: Kind = Kind::Wait { timeout: Duration::from_secs(60) };
    const PLAN: [Kind; 6] = [Kind::Action, Kind::Step, Kind::Step, Kind::Pivot, WAIT, Kind::Local];

    const POLICY: Policy = Policy {
        attempts: 3,
        backoff: Backoff {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
            factor: 2.0,
        },
        persistent_attempts: 4,
    };

    const REFUSED: Outcome =
        Outcome::Failed { retryable: false, happened: false, retry_after: None };
    const BROKEN: Outcome = Outcome::Failed { retryable: false, happened: true, retry_after: None };
    const AWAY: Outcome = Outcome::Failed { retryable: true, happened: true, retry_after: None };
    const NOT_SENT: Outcome =
        Outcome::Failed { retryable: true, happened: false, retry_after: None };

    fn forward(step: usize, attempts: u32, uncertain: bool) -> Position {
        Position { step, attempts, uncertain, ..Position::START }
    }

    fn backward(step: usize, attempts: u32) -> Position {
        let state = SagaState::Compensating;
        Position { state, backward: true, step, attempts, uncertain: false }
    }

    #[test]
    fn the_table() {
        use SagaState::{Cancelled, Completed};
        let parked = |at: Position| Position { state: SagaState::Parked, ..at };
        let cases = [
            // From, outcome, to.
            (forward(0, 0, false), Outcome::Done, forward(1, 0, false)),
            (forward(1, 2, true), Outcome::Done, forward(2, 0, false)),
            (
                forward(5, 0, false),
                Outcome::Done,
                Position { state: Completed, ..forward(6, 0, false) },
            ),
            // Before the pivot: a refusal undoes what is done, not itself.
            (forward(0, 0, false), REFUSED, backward(0, 0)),
            (forward(1, 0, false), REFUSED, backward(0, 0)),
            (forward(2, 0, false), REFUSED, backward(2, 0)),
            (forward(3, 0, false), REFUSED, backward(3, 0)),
            // It may have happened, now or in an earlier try: itself too.
            (forward(2, 0, false), BROKEN, backward(3, 0)),
            (forward(2, 1, true), REFUSED, backward(3, 0)),
            (forward(0, 0, true), REFUSED, backward(0, 0)),
            // Worth a retry, until the tries run out.
            (forward(2, 0, false), AWAY, forward(2, 1, true)),
            (forward(2, 0, false), NOT_SENT, forward(2, 1, false)),
            (forward(2, 1, true), NOT_SENT, forward(2, 2, true)),
            (forward(2, 2, true), NOT_SENT, backward(3, 0)),
            (forward(2, 2, false), NOT_SENT, backward(2, 0)),
            (forward(3, 2, true), AWAY, backward(3, 0)),
            // After the pivot there is no way back.
            (forward(5, 0, false), REFUSED, forward(5, 1, false)),
            (forward(5, 3, false), REFUSED, parked(forward(5, 3, false))),
            (forward(4, 0, false), Outcome::TimedOut, parked(forward(4, 0, false))),
            // Undoing: nearest first, past what has no undo, to the end.
            (backward(3, 1), Outcome::Done, backward(2, 0)),
            (backward(2, 0), Outcome::Done, backward(0, 0)),
            (backward(0, 0), Outcome::Done, Position { state: Cancelled, ..backward(0, 0) }),
            (backward(2, 0), REFUSED, backward(2, 1)),
            (backward(0, 0), NOT_SENT, backward(0, 1)),
            (backward(2, 3), NOT_SENT, parked(backward(2, 3))),
        ];
        for (from, outcome, to) in cases {
            assert_eq!(
                next(&PLAN, from, outcome, &POLICY, 1.0).position,
                to,
                "{from:?} {outcome:?}"
            );
        }
    }

    #[test]
    fn a_wait_before_the_pivot_that_times_out_undoes() {
        let plan = [Kind::Step, WAIT, Kind::Pivot];
        let to = next(&plan, forward(1, 0, false), Outcome::TimedOut, &POLICY, 1.0);
        assert_eq!((to.position, to.happening), (backward(1, 0), Happening::TimedOut));
    }

    #[test]
    fn without_a_pivot_there_is_a_way_back_to_the_end() {
        let plan = [Kind::Step, Kind::Step];
        let to = next(&plan, forward(1, 0, false), REFUSED, &POLICY, 1.0);
        assert_eq!(to.position, backward(1, 0));
    }

    #[test]
    fn pauses_grow_and_obey_the_server() {
        let pause = |attempts, retry_after| {
            let failed = Outcome::Failed { retryable: true, happened: true, retry_after };
            next(&PLAN, forward(2, attempts, false), failed, &POLICY, 1.0).pause
        };
        assert_eq!(pause(0, None), Duration::from_millis(100));
        assert_eq!(pause(1, None), Duration::from_millis(200));
        let asked = Duration::from_secs(7);
        assert_eq!(pause(0, Some(asked)), asked);
    }

    #[test]
    fn tasks_follow_the_position() {
        for (position, expected) in [
            (forward(0, 0, false), Some(Task::Do(0))),
            (forward(1, 0, false), Some(Task::Do(1))),
            (forward(3, 0, false), Some(Task::Commit(3))),
            (forward(4, 0, false), Some(Task::Await(4))),
            (forward(5, 0, false), Some(Task::Commit(5))),
            (backward(3, 0), Some(Task::Undo(2))),
            (backward(0, 0), Some(Task::Cancel)),
            (Position { state: SagaState::Parked, ..backward(3, 0) }, None),
        ] {
            assert_eq!(task(&PLAN, &position), expected);
        }
    }

    #[test]
    fn errors_say_whether_the_step_may_have_happened() {
        let failed = |error: Error| match Outcome::of(&error) {
            Outcome::Failed { retryable, happened, .. } => (retryable, happened),
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(Error::failed_precondition("X", "no")), (false, false));
        assert_eq!(failed(Error::deadline_exceeded("X", "late")), (true, true));
        assert_eq!(failed(Error::unavailable("X", "away")), (true, true));
        assert_eq!(failed(Error::unavailable("X", "away").not_sent()), (true, false));
        assert_eq!(failed(Error::internal("bug")), (false, true));
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Step), Just(Kind::Action), Just(Kind::Local), Just(WAIT)]
    }

    proptest! {
        /// Over any plan and any outcomes: it ends, effects are all there or all
        /// gone, and nothing is undone after the pivot.
        #[test]
        fn it_ends_clean(
            before in prop::collection::vec(kind(), 0..4),
            pivot in any::<bool>(),
            after in prop::collection::vec(prop_oneof![Just(Kind::Action), Just(Kind::Local), Just(WAIT)], 0..3),
            outcomes in prop::collection::vec(0u8..6, 0..60),
        ) {
            let mut plan = before;
            if pivot {
                plan.push(Kind::Pivot);
                plan.extend(after);
            }
            prop_assume!(!plan.is_empty());
            let mut at = Position::START;
            // What an outside service holds for us, by step.
            let mut held = vec![false; plan.len()];
            let mut pivoted = false;
            let mut outcomes = outcomes.into_iter();
            while let Some(task) = task(&plan, &at) {
                // When the dice run out everything succeeds.
                let outcome = match outcomes.next().unwrap_or(0) {
                    _ if matches!(task, Task::Await(_)) && at.attempts > 0 => Outcome::Done,
                    0 | 1 => Outcome::Done,
                    2 if matches!(task, Task::Await(_)) => Outcome::TimedOut,
                    2 => REFUSED,
                    3 => AWAY,
                    4 => BROKEN,
                    _ => NOT_SENT,
                };
                let happened = match outcome {
                    Outcome::Done => true,
                    Outcome::Failed { happened, .. } => happened,
                    Outcome::TimedOut => false,
                };
                match task {
                    Task::Do(step) if happened && plan[step] == Kind::Step => held[step] = true,
                    Task::Undo(step) if outcome == Outcome::Done => held[step] = false,
                    Task::Commit(step) if outcome == Outcome::Done => {
                        pivoted |= plan[step] == Kind::Pivot;
                    }
                    _ => {}
                }
                if let Task::Undo(step) = task {
                    prop_assert!(!pivoted, "undo of {step} after the pivot");
                }
                at = next(&plan, at, outcome, &POLICY, 0.5).position;
            }
            match at.state {
                SagaState::Cancelled => prop_assert!(!held.contains(&true), "{held:?} left over"),
                SagaState::Completed => {
                    let steps = plan.iter().filter(|kind| **kind == Kind::Step).count();
                    prop_assert_eq!(held.iter().filter(|held| **held).count(), steps);
                }
                SagaState::Parked => prop_assert!(pivoted || at.backward),
                state => prop_assert!(false, "ended in {state:?}"),
            }
        }
    }
}
