//! Whether and when a whole transaction runs again.
//!
//! Serialisable databases and single-writer databases refuse a transaction now and then and
//! expect it to be repeated from the start; nothing was written, so repeating is safe. Full
//! jitter keeps two transactions that collided from colliding again. Source: "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

use chassis_core::{Code, Error};

use crate::error::{DEADLOCK, LOCK_TIMEOUT, SERIALIZATION_FAILURE};

/// Most runs of one transaction.
const ATTEMPTS: u32 = 5;
const BASE: Duration = Duration::from_millis(10);
const CAP: Duration = Duration::from_millis(500);

/// The pause before the next run, or `None` to give up.
///
/// `attempt` counts the runs so far, from one. `random` is in `0.0..1.0`. `time_left` is how
/// long somebody still waits for the answer.
pub(crate) fn next(
    attempt: u32,
    error: &Error,
    random: f64,
    time_left: Option<Duration>,
) -> Option<Duration> {
    if attempt >= ATTEMPTS || !is_conflict(error) {
        return None;
    }
    let ceiling = (BASE * 2_u32.saturating_pow(attempt - 1)).min(CAP);
    let pause = ceiling.mul_f64(random);
    time_left.is_none_or(|left| left > pause).then_some(pause)
}

/// Whether the transaction lost against another one.
pub(crate) fn is_conflict(error: &Error) -> bool {
    error.code() == Code::Aborted
        && [SERIALIZATION_FAILURE, DEADLOCK, LOCK_TIMEOUT].contains(&error.reason())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict() -> Error {
        Error::aborted(SERIALIZATION_FAILURE, "conflict")
    }

    #[test]
    fn only_conflicts_are_repeated_and_not_for_ever() {
        let ms = Duration::from_millis;
        assert_eq!(next(1, &conflict(), 0.5, None), Some(ms(5)));
        assert_eq!(next(4, &conflict(), 0.5, None), Some(ms(40)));
        assert_eq!(next(5, &conflict(), 0.5, None), None);
        assert_eq!(next(1, &Error::aborted("VERSION_CONFLICT", "business"), 0.5, None), None);
        assert_eq!(next(1, &Error::unavailable("DOWN", "down"), 0.5, None), None);
    }

    #[test]
    fn nobody_waits_for_a_pause_past_the_deadline() {
        let left = |ms| Some(Duration::from_millis(ms));
        assert!(next(1, &conflict(), 0.5, left(6)).is_some());
        assert!(next(1, &conflict(), 0.5, left(5)).is_none());
    }
}
