//! Who decides whether an attempt is followed by another.
//!
//! The layer owns the waiting, the counting and the budget; the policy owns what
//! only the protocol knows: whether the request can be copied, whether it is
//! safe to send twice, and what the answer means.

use std::time::Duration;

use tokio::time::Instant;

use super::Backoff;
use crate::Class;

/// What should follow an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The answer stands.
    Done,
    /// Try again after the backoff, if the budget allows.
    Retry,
    /// Try again, not sooner than the server asked (`Retry-After`, gRPC
    /// push-back), if the budget allows.
    RetryAfter(Duration),
    /// Try again without paying: the request provably never left, so another
    /// attempt adds no load to the callee. The first time at once, not counted as
    /// an attempt; after that after the backoff.
    RetryFree,
    /// The callee refused the request before it looked at it. The first time, try
    /// again at once and without paying (gRFC A6, "transparent retries"); it is
    /// not counted as an attempt. After that it is a [`Decision::Retry`].
    Refused,
}

impl Decision {
    /// What follows from the meaning of an answer: `safe` says whether the
    /// request may be done twice, `retry_after` what the callee asked for.
    ///
    /// An overloaded callee is only asked again if it says when.
    pub fn from_class(class: Class, safe: bool, retry_after: Option<Duration>) -> Self {
        match (class, retry_after) {
            (Class::Refused, _) => Decision::Refused,
            (Class::Unreachable, _) => Decision::RetryFree,
            (Class::Failure | Class::Overloaded, Some(wait)) if safe => Decision::RetryAfter(wait),
            (Class::Failure, None) if safe => Decision::Retry,
            _ => Decision::Done,
        }
    }
}

/// Decides about attempts of one kind of request.
pub trait RetryPolicy<Req, Res, E>: Clone {
    /// A copy for a further attempt; `None` if the request cannot be copied or
    /// must not be sent twice. Then the first answer stands.
    fn clone_request(&self, request: &Req) -> Option<Req>;

    /// Judges the answer to attempt number `attempt` (1 = the first one).
    ///
    /// It is not asked about what a layer of this process refused
    /// ([`is_local_rejection`](crate::is_local_rejection)): that is never retried.
    /// After the last allowed attempt only [`Decision::Refused`] and
    /// [`Decision::RetryFree`] count, if neither was said before.
    fn decide(&self, attempt: u32, request: &Req, result: Result<&Res, &E>) -> Decision;

    /// Until when the caller waits. No attempt is begun at or after that time.
    fn deadline(&self, _request: &Req) -> Option<Instant> {
        None
    }

    /// Writes into a further attempt which one it is (2 = the first retry), for a
    /// protocol that has a header for it.
    fn mark_attempt(&self, _request: &mut Req, _attempt: u32) {}
}

/// The bounds of a [`RetryLayer`](super::RetryLayer) besides the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// All attempts, with the first one. 1 switches retries off, but for the one
    /// after an attempt that the callee has not looked at.
    pub max_attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// If the server asks for a longer wait than this, the answer stands.
    pub max_retry_after: Duration,
}

impl Default for RetrySettings {
    /// 3 attempts (the second hides a lost connection, the third a restart), and
    /// no wait above 5 seconds, because somebody is waiting for the answer.
    fn default() -> Self {
        RetrySettings {
            max_attempts: 3,
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_the_meaning_of_an_answer() {
        use Decision::{Done, Refused, Retry, RetryAfter, RetryFree};
        let second = Duration::from_secs(1);
        for (class, safe, hint, expected) in [
            (Class::Success, true, None, Done),
            (Class::Ignore, true, Some(second), Done),
            (Class::Failure, true, None, Retry),
            (Class::Failure, true, Some(second), RetryAfter(second)),
            (Class::Failure, false, Some(second), Done),
            (Class::Overloaded, true, None, Done),
            (Class::Overloaded, true, Some(second), RetryAfter(second)),
            (Class::Refused, false, None, Refused),
            (Class::Unreachable, false, None, RetryFree),
        ] {
            assert_eq!(Decision::from_class(class, safe, hint), expected, "{class:?} {safe}");
        }
    }
}
