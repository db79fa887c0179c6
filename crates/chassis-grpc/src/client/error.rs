//! What went wrong below, in our words.
//!
//! Each layer has an error type of its own. Here they become one error with a
//! code and a reason; the type itself stays as the private source.

use std::error::Error as StdError;

use chassis_core::{BoxError, Error};
use chassis_discovery::{AllOpen, NoEndpoints, Unreachable, provably_not_sent};
use chassis_resilience::{Elapsed, is_local_rejection, retry_in};

use super::connection::ConnectFailed;

/// One attempt, or the wait for one, failed.
pub(super) fn explain(error: BoxError) -> Error {
    let error = match error.downcast::<NoEndpoints>() {
        Ok(error) => return (*error).into(),
        Err(error) => error,
    };
    let error = match error.downcast::<AllOpen>() {
        Ok(error) => return (*error).into(),
        Err(error) => error,
    };
    let error = match error.downcast::<Unreachable>() {
        Ok(error) => return (*error).into(),
        Err(error) => error,
    };
    if is_local_rejection(&*error) {
        let pause = retry_in(&*error);
        let message = "too many calls to a service that is needed";
        let error = Error::unavailable("TOO_MANY_CALLS", message).with_source(error).not_sent();
        return match pause {
            Some(pause) => error.with_retry_after(pause),
            None => error,
        };
    }
    if error.is::<Elapsed>() {
        let message = "a service that is needed did not answer in time";
        return Error::deadline_exceeded("NO_ANSWER_IN_TIME", message).with_source(error);
    }
    let not_sent = is_not_sent(&*error);
    let message = "a service that is needed cannot be reached";
    let explained = Error::unavailable("UNREACHABLE", message).with_source(error);
    if not_sent { explained.not_sent() } else { explained }
}

/// Whether the request provably never reached the server: there was no endpoint,
/// no connection, or a connection that closed before it took the request.
pub(super) fn is_not_sent(error: &(dyn StdError + 'static)) -> bool {
    provably_not_sent(error)
        || any(error, |error| {
            error.is::<ConnectFailed>()
                || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
                || error.downcast_ref::<h2::Error>().is_some_and(was_refused)
        })
}

/// Whether there is nobody at the other end.
pub(super) fn is_unreachable(error: &(dyn StdError + 'static)) -> bool {
    any(error, |error| error.is::<ConnectFailed>())
}

/// Whether the server has turned the call away without looking at it.
pub(super) fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    any(error, |error| error.downcast_ref::<h2::Error>().is_some_and(was_refused))
}

/// Either the stream alone (RFC 9113, 8.7), or all streams after the last one that a graceful
/// GOAWAY names (6.8). Of one with an error code the same is not known: it may end calls that
/// have begun.
fn was_refused(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => true,
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

fn any(
    error: &(dyn StdError + 'static),
    mut test: impl FnMut(&(dyn StdError + 'static)) -> bool,
) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if test(error) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_layer_is_understood() {
        let target = chassis_discovery::Target::new("greeter", "grpc");
        let second = Duration::from_secs(1);
        let circuit = chassis_resilience::CircuitOpen { retry_in: second };
        let address = ([127, 0, 0, 1], 1).into();
        let failed = ConnectFailed { address, source: BoxError::from("refused").into() };
        let away = Unreachable { target: target.clone(), endpoints: 1 };
        let cases: Vec<(BoxError, &str, bool)> = vec![
            (Box::new(away), "UNREACHABLE", true),
            (Box::new(NoEndpoints { target: target.clone() }), "NO_ENDPOINTS", true),
            (Box::new(AllOpen { target, circuit }), "CIRCUIT_OPEN", true),
            (
                Box::new(chassis_resilience::BulkheadFull { limit: 1, waited: second }),
                "TOO_MANY_CALLS",
                true,
            ),
            (Box::new(Elapsed { after: second }), "NO_ANSWER_IN_TIME", false),
            (Box::new(failed), "UNREACHABLE", true),
            ("connection reset".into(), "UNREACHABLE", false),
        ];
        for (error, reason, not_sent) in cases {
            let explained = explain(error);
            assert_eq!(explained.reason(), reason);
            assert_eq!(explained.was_not_sent(), not_sent, "{reason}");
            assert!(StdError::source(&explained).is_some(), "{reason}");
        }
    }
}
