//! Who decides whether an attempt is followed by another.
//!
//! The layer owns the waiting, the counting and the budget; the policy owns what
//! only the protocol knows: whether the request can be copied, whether it is
//! safe to send twice, and what the answer means.

use std::time::Duration;

use super::Backoff;

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
    /// Try again after the backoff without paying: the request provably never
    /// left, so another attempt adds no load to the callee.
    RetryFree,
}

/// Decides about attempts of one kind of request.
pub trait RetryPolicy<Req, Res, E>: Clone {
    /// A copy for a further attempt; `None` if the request cannot be copied or
    /// must not be sent twice. Then the first answer stands.
    fn clone_request(&self, request: &Req) -> Option<Req>;

    /// Judges the answer to attempt number `attempt` (1 = the first one).
    ///
    /// It is not asked after the last allowed attempt.
    fn decide(&self, attempt: u32, request: &Req, result: Result<&Res, &E>) -> Decision;
}

/// The bounds of a [`RetryLayer`](super::RetryLayer) besides the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// All attempts, with the first one. 1 switches retries off.
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
