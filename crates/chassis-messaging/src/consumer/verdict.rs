//! The brain of a consumer: what happens to a message whose handler failed.

use std::time::Duration;

use chassis_core::{Code, Error};

use super::config::ConsumerConfig;

/// Pauses before an immediate retry grow from here; long enough for the winner
/// of a race to commit, short enough to keep the hand.
const IMMEDIATE_PAUSE: Duration = Duration::from_millis(10);

/// After this many times `max_attempts` a message is under suspicion: it never got as far
/// as failing, so it may be what kills the process.
const HOPELESS: u32 = 3;

/// So many tries of a suspect may end without an answer. Then it is not tried any more.
pub(super) const TRIALS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Try again, with the message in hand, after this pause.
    Now(Duration),
    /// Back to the broker for this long.
    Later(Duration),
    /// To the dead letters.
    Dead,
}

/// Decides. `tries` counts this delivery's tries, `attempt` the deliveries, both
/// from 1; `random` is from 0 to 1.
pub(super) fn decide(
    error: &Error,
    tries: u32,
    attempt: u32,
    config: &ConsumerConfig,
    random: f64,
) -> Verdict {
    if is_hopeless(error.code()) {
        return Verdict::Dead;
    }
    // Half of the delay is fixed: jitter must not turn a delay into none.
    let jitter = 0.5 + random / 2.0;
    if error.retry_after().is_none() && tries <= config.immediate_retries {
        return Verdict::Now(IMMEDIATE_PAUSE.mul_f64(f64::from(tries) * jitter));
    }
    if attempt >= config.max_attempts {
        return Verdict::Dead;
    }
    let delay = config.backoff().delay(attempt, jitter);
    let asked = error.retry_after().unwrap_or_default().min(config.max_retry_delay);
    Verdict::Later(delay.max(asked))
}

/// Whether a delivery has come so often that it is tried only on trial.
pub(super) fn came_too_often(attempt: u32, config: &ConsumerConfig) -> bool {
    attempt > config.max_attempts.saturating_mul(HOPELESS)
}

/// How long to keep a message that cannot even be buried.
pub(super) fn unburied(attempt: u32, config: &ConsumerConfig, random: f64) -> Duration {
    config.backoff().delay(attempt.max(2), 0.5 + random / 2.0)
}

/// Whether the same message cannot do better next time.
fn is_hopeless(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> Error {
        Error::new(code, "SOME_REASON", "some message")
    }

    fn config() -> ConsumerConfig {
        ConsumerConfig::default()
    }

    #[test]
    fn a_table_of_verdicts() {
        let seconds = Duration::from_secs_f64;
        for (code, tries, attempt, expected) in [
            (Code::Internal, 1, 1, Verdict::Now(Duration::from_millis(10))),
            (Code::Aborted, 2, 1, Verdict::Now(Duration::from_millis(20))),
            (Code::Internal, 3, 1, Verdict::Later(seconds(1.0))),
            (Code::Unavailable, 3, 2, Verdict::Later(seconds(4.0))),
            (Code::NotFound, 3, 5, Verdict::Later(seconds(256.0))),
            (Code::Internal, 1, 6, Verdict::Now(Duration::from_millis(10))),
            (Code::Internal, 3, 6, Verdict::Dead),
            (Code::Internal, 3, 99, Verdict::Dead),
            (Code::InvalidArgument, 1, 1, Verdict::Dead),
            (Code::Unimplemented, 1, 1, Verdict::Dead),
            (Code::OutOfRange, 1, 1, Verdict::Dead),
        ] {
            let verdict = decide(&error(code), tries, attempt, &config(), 1.0);
            assert_eq!(verdict, expected, "{code:?} {tries} {attempt}");
        }
    }

    #[test]
    fn jitter_keeps_half_of_the_delay() {
        let verdict = decide(&error(Code::Internal), 3, 1, &config(), 0.0);
        assert_eq!(verdict, Verdict::Later(Duration::from_millis(500)));
    }

    #[test]
    fn who_asks_for_time_gets_it_within_limits() {
        let busy =
            |seconds| error(Code::Unavailable).with_retry_after(Duration::from_secs(seconds));
        let verdict = decide(&busy(20), 1, 1, &config(), 1.0);
        assert_eq!(verdict, Verdict::Later(Duration::from_secs(20)));
        let verdict = decide(&busy(99_999), 1, 1, &config(), 1.0);
        assert_eq!(verdict, Verdict::Later(config().max_retry_delay));
    }

    #[test]
    fn a_message_that_never_got_as_far_as_failing() {
        assert!(!came_too_often(18, &config()));
        assert!(came_too_often(19, &config()));
    }
}
