//! Adaptive throttle: send an overloaded callee a little more than it accepts, and no more.
//!
//! A [breaker](crate::breaker) knows two answers, all or nothing, which suits a callee that is
//! gone. One that is overloaded still does some work, and a breaker would take that too, then
//! send everything again. The throttle refuses a growing share instead: with `requests` and
//! `accepts` of the recent past, a call is refused with the probability
//! `max(0, (requests - k * accepts) / (requests + 1))` ("Handling Overload", *Site Reliability
//! Engineering*, O'Reilly 2016). A callee that accepts all is never throttled, one that
//! accepts a third gets `k` thirds, and it is noticed at once when it recovers.
//!
//! It is the second kind of breaker, and stands where a breaker would. What it refuses counts
//! as a request that was not accepted, so the more callers want, the larger the share is that
//! ends here instead of at the callee.

mod accepts;
mod error;
mod handle;

pub use accepts::ThrottleSettings;
pub use error::Throttled;
pub use handle::{Throttle, ThrottlePermit, ThrottleStats};

/// Puts a [`Throttle`] on a service.
pub type ThrottleLayer<C> = crate::GuardLayer<Throttle, C>;
/// Makes calls only with leave of its [`Throttle`]. A call that is dropped is not counted.
pub type ThrottleService<S, C> = crate::Guarded<S, Throttle, C>;
