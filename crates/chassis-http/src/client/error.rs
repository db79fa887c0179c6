//! Why a call got no answer, in the vocabulary of [`Error`].
//!
//! The public message does not name the service: it may end at a caller who should not know
//! what is behind. The name is in the source, for the log.

use std::{error::Error as StdError, fmt};

use chassis_core::{BoxError, Error};
use chassis_discovery::{AllOpen, NoEndpoints, Unreachable};
use chassis_resilience::{chaos::Injected, is_local_rejection, retry_in, timeout::Elapsed};
use hyper_util::client::legacy;

/// The reason of a call that found nobody to connect to.
pub(super) const CONNECT_FAILED: &str = "CONNECT_FAILED";
/// The reason of a body that broke on our side.
pub(super) const BODY_FAILED: &str = "REQUEST_BODY_FAILED";
/// The reason of a call that ran into its deadline.
pub(super) const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";

/// A call failed; what is behind it says how.
#[derive(Debug)]
struct CallFailed {
    service: String,
    source: BoxError,
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call to {}", self.service)
    }
}

impl StdError for CallFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

pub(super) fn deadline_exceeded() -> Error {
    Error::deadline_exceeded(DEADLINE_EXCEEDED, "the deadline of the call has passed")
}

/// What the transport says, with whether anything was sent.
pub(super) fn from_transport(error: legacy::Error) -> Error {
    if error.is_connect() {
        return Error::unavailable("CONNECT_FAILED", "a service that is needed cannot be reached")
            .with_source(error)
            .not_sent();
    }
    if is_our_body(&error) {
        return Error::unavailable(BODY_FAILED, "the body of the request broke off")
            .with_source(error);
    }
    let unused = is_unused(&error);
    let lost =
        Error::unavailable("CONNECTION_LOST", "a service that is needed broke off the connection")
            .with_source(error);
    if unused { lost.not_sent() } else { lost }
}

fn is_our_body(error: &legacy::Error) -> bool {
    any(error, hyper::Error::is_user)
}

/// Whether the connection was closed before the request was written to it.
fn is_unused(error: &legacy::Error) -> bool {
    any(error, hyper::Error::is_canceled)
}

fn any(error: &legacy::Error, test: fn(&hyper::Error) -> bool) -> bool {
    std::iter::successors(error.source(), |&error| error.source())
        .any(|source| source.downcast_ref::<hyper::Error>().is_some_and(test))
}

/// What the stack says, with the name of the service for the log.
pub(super) fn from_stack(error: BoxError, service: &str) -> Error {
    let error = match error.downcast::<Error>() {
        // Nothing of ours has more than one wrapping: the source is the transport's.
        Ok(error) => return named(*error, service),
        Err(other) => other,
    };
    let error = match error.downcast::<NoEndpoints>() {
        Ok(error) => return Error::from(*error),
        Err(other) => other,
    };
    let error = match error.downcast::<AllOpen>() {
        Ok(error) => return Error::from(*error),
        Err(other) => other,
    };
    let error = match error.downcast::<Unreachable>() {
        Ok(error) => {
            let message = "a service that is needed cannot be reached";
            return Error::unavailable("CONNECT_FAILED", message).with_source(error).not_sent();
        }
        Err(other) => other,
    };
    if error.is::<Injected>() {
        Error::unavailable("FAULT_INJECTED", "a call failed on purpose")
            .with_source(CallFailed { service: service.to_owned(), source: error })
    } else if error.is::<Elapsed>() {
        Error::deadline_exceeded(
            "ATTEMPT_TIMEOUT",
            "a service that is needed did not answer in time",
        )
        .with_source(CallFailed { service: service.to_owned(), source: error })
    } else if is_local_rejection(&*error) {
        let pause = retry_in(&*error);
        let error =
            Error::unavailable("TOO_MANY_CALLS", "too many calls to a service that is needed")
                .with_source(CallFailed { service: service.to_owned(), source: error })
                .not_sent();
        match pause {
            Some(pause) => error.with_retry_after(pause),
            None => error,
        }
    } else {
        Error::internal(CallFailed { service: service.to_owned(), source: error })
    }
}

/// The same error, with the service's name between it and its source.
fn named(error: Error, service: &str) -> Error {
    like(&error).with_source(CallFailed { service: service.to_owned(), source: error.into() })
}

/// An error that says the same to the caller; its source is for the one who wraps.
pub(super) fn like(error: &Error) -> Error {
    let mut like = Error::new(error.code(), error.reason().to_owned(), error.message().to_owned());
    if let Some(pause) = error.retry_after() {
        like = like.with_retry_after(pause);
    }
    if error.was_not_sent() { like.not_sent() } else { like }
}
