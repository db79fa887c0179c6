//! What an operator may do to a saga: the table, without I/O and without a clock.
//!
//! | | parked | waits for a signal or the next try | about to move | ended, or not begun |
//! |---|---|---|---|---|
//! | retry | goes on, all tries | next try at once; not from a signal | refused | refused |
//! | skip | step counts as done | step counts as done | refused | refused |
//! | compensate | undo, before the pivot | undo, before the pivot | undo, before the pivot | refused |
//!
//! A skipped undo counts as undone. A skipped step is undone later like one that was done:
//! an undo succeeds where there is nothing to undo.

use chassis_core::Error;

use super::progress::{Kind, Position, SagaState, past_pivot, turn_back, undo_below};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Retry,
    Skip,
    Compensate,
}

impl Move {
    /// For the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Move::Retry => "resumed",
            Move::Skip => "skipped",
            Move::Compensate => "turned back",
        }
    }
}

/// Why a saga cannot be moved that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Ended,
    NotBegun,
    NotParked,
    NotStuck,
    NoSuchStep,
    Undoing,
    PastPivot,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let (reason, message) = match refused {
            Refused::Ended => ("SAGA_ENDED", "it has ended"),
            Refused::NotBegun => {
                ("SAGA_NOT_BEGUN", "it has not begun: it waits for the saga before it")
            }
            Refused::NotParked => {
                ("SAGA_NOT_STUCK", "it is neither parked nor between two tries of a step")
            }
            Refused::NotStuck => (
                "SAGA_NOT_STUCK",
                "it goes on by itself: only a step that is parked, waits for a signal or was \
                 tried in vain can be skipped",
            ),
            Refused::NoSuchStep => ("SAGA_DEFINITION_DIFFERS", "its definition has no such step"),
            Refused::Undoing => ("SAGA_COMPENSATING", "it is being undone already"),
            Refused::PastPivot => {
                ("SAGA_PAST_PIVOT", "it is past the pivot: it can be finished, not undone")
            }
        };
        Error::failed_precondition(reason, message)
    }
}

/// Where a saga stands after the move.
pub(crate) fn steer(plan: &[Kind], at: Position, asked: Move) -> Result<Position, Refused> {
    match at.state {
        SagaState::Completed | SagaState::Cancelled => return Err(Refused::Ended),
        SagaState::Queued => return Err(Refused::NotBegun),
        SagaState::Running | SagaState::Compensating | SagaState::Parked => {}
    }
    let parked = at.state == SagaState::Parked;
    let kind = plan.get(at.step).filter(|_| !at.backward);
    let waits = matches!(kind, Some(Kind::Wait { .. }));
    match asked {
        Move::Retry if parked || at.attempts > 0 && !waits => Ok(at.resumed()),
        Move::Retry => Err(Refused::NotParked),
        Move::Skip if !(parked || at.attempts > 0 || waits) => Err(Refused::NotStuck),
        Move::Skip => skip(plan, at),
        Move::Compensate if at.backward => Err(Refused::Undoing),
        Move::Compensate if past_pivot(plan, at.step) => Err(Refused::PastPivot),
        Move::Compensate => Ok(turn_back(plan, at)),
    }
}

fn skip(plan: &[Kind], at: Position) -> Result<Position, Refused> {
    if at.backward {
        return Ok(match at.step.checked_sub(1) {
            Some(step) => undo_below(plan, step),
            None => at.ended(SagaState::Cancelled),
        });
    }
    let step = at.step + 1;
    let state = match step.cmp(&plan.len()) {
        std::cmp::Ordering::Less => SagaState::Running,
        std::cmp::Ordering::Equal => SagaState::Completed,
        std::cmp::Ordering::Greater => return Err(Refused::NoSuchStep),
    };
    Ok(Position { state, step, attempts: 0, uncertain: false, ..at })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const WAIT: Kind = Kind::Wait { timeout: Duration::from_secs(60) };
    const PLAN: [Kind; 6] = [Kind::Action, Kind::Step, Kind::Step, Kind::Pivot, WAIT, Kind::Local];

    fn forward(step: usize, attempts: u32) -> Position {
        Position { step, attempts, ..Position::START }
    }

    fn backward(step: usize, attempts: u32) -> Position {
        let state = SagaState::Compensating;
        Position { state, backward: true, step, attempts, uncertain: false }
    }

    fn parked(at: Position) -> Position {
        Position { state: SagaState::Parked, ..at }
    }

    fn in_state(state: SagaState, at: Position) -> Position {
        Position { state, ..at }
    }

    #[test]
    fn the_table() {
        use Move::{Compensate, Retry, Skip};
        use SagaState::{Cancelled, Completed, Queued};
        let uncertain = |at: Position| Position { uncertain: true, ..at };
        let cases = [
            // Parked before the pivot, for example by an unknown version.
            (parked(forward(1, 0)), Retry, Ok(forward(1, 0))),
            (parked(forward(1, 3)), Retry, Ok(forward(1, 0))),
            (parked(forward(1, 3)), Skip, Ok(forward(2, 0))),
            (parked(forward(2, 3)), Compensate, Ok(backward(2, 0))),
            (parked(uncertain(forward(2, 3))), Compensate, Ok(backward(3, 0))),
            (parked(uncertain(forward(2, 3))), Skip, Ok(forward(3, 0))),
            // Parked after the pivot.
            (parked(forward(4, 0)), Retry, Ok(forward(4, 0))),
            (parked(forward(4, 0)), Skip, Ok(forward(5, 0))),
            (parked(forward(5, 4)), Skip, Ok(in_state(Completed, forward(6, 0)))),
            (parked(forward(5, 4)), Compensate, Err(Refused::PastPivot)),
            // Parked while undoing.
            (parked(backward(3, 4)), Retry, Ok(backward(3, 0))),
            (parked(backward(3, 4)), Skip, Ok(backward(2, 0))),
            (parked(backward(2, 4)), Skip, Ok(backward(0, 0))),
            (parked(backward(0, 4)), Skip, Ok(in_state(Cancelled, backward(0, 0)))),
            (parked(backward(2, 4)), Compensate, Err(Refused::Undoing)),
            // Between two tries.
            (forward(2, 1), Retry, Ok(forward(2, 0))),
            (uncertain(forward(2, 1)), Retry, Ok(uncertain(forward(2, 0)))),
            (forward(2, 1), Skip, Ok(forward(3, 0))),
            (forward(3, 1), Skip, Ok(forward(4, 0))),
            (forward(3, 1), Compensate, Ok(backward(3, 0))),
            (backward(2, 1), Retry, Ok(backward(2, 0))),
            (backward(2, 1), Skip, Ok(backward(0, 0))),
            (backward(2, 1), Compensate, Err(Refused::Undoing)),
            // Waits for a signal.
            (forward(4, 0), Retry, Err(Refused::NotParked)),
            (forward(4, 1), Retry, Err(Refused::NotParked)),
            (forward(4, 0), Skip, Ok(forward(5, 0))),
            (forward(4, 0), Compensate, Err(Refused::PastPivot)),
            // About to move.
            (forward(0, 0), Retry, Err(Refused::NotParked)),
            (forward(1, 0), Skip, Err(Refused::NotStuck)),
            (forward(1, 0), Compensate, Ok(backward(0, 0))),
            (forward(0, 0), Compensate, Ok(backward(0, 0))),
            (backward(2, 0), Skip, Err(Refused::NotStuck)),
            // Nothing to steer.
            (in_state(Completed, forward(6, 0)), Retry, Err(Refused::Ended)),
            (in_state(Completed, forward(6, 0)), Compensate, Err(Refused::Ended)),
            (in_state(Cancelled, backward(0, 0)), Skip, Err(Refused::Ended)),
            (in_state(Queued, forward(0, 0)), Retry, Err(Refused::NotBegun)),
            (in_state(Queued, forward(0, 0)), Skip, Err(Refused::NotBegun)),
            (in_state(Queued, forward(0, 0)), Compensate, Err(Refused::NotBegun)),
            // A table that became shorter.
            (parked(forward(6, 0)), Skip, Err(Refused::NoSuchStep)),
        ];
        for (from, asked, expected) in cases {
            assert_eq!(steer(&PLAN, from, asked), expected, "{asked:?} {from:?}");
        }
    }

    #[test]
    fn a_wait_before_the_pivot_can_be_turned_back() {
        let plan = [Kind::Step, WAIT, Kind::Pivot];
        assert_eq!(steer(&plan, forward(1, 0), Move::Compensate), Ok(backward(1, 0)));
    }

    proptest! {
        /// From wherever it is parked, skipping again and again reaches the end that it was
        /// going to, one step at a time.
        #[test]
        fn skipping_leads_to_the_end(step in 0usize..6, back in any::<bool>(), attempts in 0u32..5) {
            let mut at = parked(if back { backward(step, attempts) } else { forward(step, attempts) });
            let mut skips = 0;
            while let Ok(next) = steer(&PLAN, at, Move::Skip) {
                prop_assert_eq!(next.backward, back);
                prop_assert!(back && next.step < at.step.max(1) || next.step == at.step + 1);
                at = if next.state.has_ended() { next } else { parked(next) };
                skips += 1;
            }
            prop_assert!(skips <= PLAN.len());
            let end = if back { SagaState::Cancelled } else { SagaState::Completed };
            prop_assert_eq!(at.state, end);
        }
    }
}
