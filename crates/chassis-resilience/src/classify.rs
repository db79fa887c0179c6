//! What an answer means for the health of the one who gave it.
//!
//! A layer cannot know by itself that HTTP 503 is a failure although it is an
//! `Ok`, or that "not found" is a healthy answer although it is an `Err`.
//! Whoever knows the protocol says so once, here, and every layer asks.

use std::time::Duration;

/// The meaning of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The callee did its work.
    Success,
    /// The callee did not do its work, and it is the callee's fault.
    Failure,
    /// The callee works and says that it is asked too much, as HTTP 429 and
    /// `RESOURCE_EXHAUSTED` do. It counts for rates, but is no sign that the
    /// callee is gone.
    Overloaded,
    /// The callee refused the request before it looked at it, as a refused HTTP/2
    /// stream or a connection that goes away do. It says nothing about health,
    /// and the request is safe to send again, whatever it was.
    Refused,
    /// No connection to the callee could be made, so that the request never left. The callee
    /// is not there, which counts as a failure; the request is safe to send elsewhere, whatever
    /// it was.
    Unreachable,
    /// The answer says nothing about the callee, for example a cancelled call.
    Ignore,
}

/// Judges answers. Implemented by every matching closure.
pub trait Classify<T, E>: Clone + Send + Sync {
    /// Judges one answer. It is called once per call, on its hot path.
    fn classify(&self, result: Result<&T, &E>) -> Class;

    /// For how long the callee asks to be left alone (`Retry-After`, gRPC
    /// push-back). It is asked only about answers that are no success.
    fn retry_after(&self, _result: Result<&T, &E>) -> Option<Duration> {
        None
    }
}

impl<T, E, F> Classify<T, E> for F
where
    F: Fn(Result<&T, &E>) -> Class + Clone + Send + Sync,
{
    fn classify(&self, result: Result<&T, &E>) -> Class {
        self(result)
    }
}

/// The ready-made classifier for services whose `Err` is the only failure.
#[derive(Clone, Copy, Debug)]
pub struct Classified(());

impl Classified {
    /// `Ok` is a success, `Err` is a failure.
    pub fn errors() -> Self {
        Classified(())
    }
}

impl<T, E> Classify<T, E> for Classified {
    fn classify(&self, result: Result<&T, &E>) -> Class {
        if result.is_ok() { Class::Success } else { Class::Failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_only_failures() {
        let classify = Classified::errors();
        assert_eq!(Classify::<u8, u8>::classify(&classify, Ok(&1)), Class::Success);
        assert_eq!(Classify::<u8, u8>::classify(&classify, Err(&1)), Class::Failure);
    }

    #[test]
    fn a_closure_may_call_an_ok_a_failure() {
        let classify = |result: Result<&u16, &()>| match result {
            Ok(status) if *status < 500 => Class::Success,
            _ => Class::Failure,
        };
        assert_eq!(classify.classify(Ok(&200)), Class::Success);
        assert_eq!(classify.classify(Ok(&503)), Class::Failure);
    }
}
