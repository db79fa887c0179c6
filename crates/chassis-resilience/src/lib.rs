//! Tower layers for failure: timeout, retry, hedge, breaker, limits, load shed, fallback, cache.
//!
//! Calls over a network fail in few ways: the callee is gone, it is slow, it is
//! ill, or there is too much of the caller. Each layer here answers one of them,
//! and none answers two. That is why they are a stack, and why the order matters
//! more than the numbers.
//!
//! # The order
//!
//! From the caller inwards:
//!
//! 1. **Total timeout.** The caller's patience. It stands outside, because
//!    retries must share it, not multiply it.
//! 2. **Retry.** Outside everything that can fail for one attempt only, so that
//!    each attempt passes all the rest anew and can land elsewhere. The budget
//!    bounds retries as a share of requests: with three layers of services that
//!    each try three times, a dead callee at the bottom would get 27 times its
//!    load; with a budget of 20 % it gets 1.7 times.
//! 3. **Rate limit.** Inside retry, because a retry is a call too.
//! 4. **Bulkhead.** Inside retry, so that the wait between attempts does not
//!    hold a place. Outside the breaker, so that what the breaker judges is the
//!    callee, not our own queue.
//! 5. **Circuit breaker.** Outside the timeout of the attempt: a timeout is the
//!    commonest sign of an ill callee, and a breaker that stands inside it sees
//!    only a dropped future.
//! 6. **Attempt timeout.** Next to the call. Without it one silent attempt uses
//!    up the whole patience and nothing is left to retry.
//!
//! ```
//! use std::time::Duration;
//!
//! use chassis_resilience::{
//!     Classified, Decision, Profile, RetryPolicy,
//!     breaker::{CircuitBreaker, CircuitBreakerLayer},
//!     bulkhead::{Bulkhead, BulkheadLayer},
//!     rate_limit::{RateLimit, RateLimitLayer},
//!     retry::{RetryBudget, RetryLayer},
//!     timeout::TimeoutLayer,
//!     BoxError,
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! // What only the protocol knows: these requests are safe to send twice.
//! #[derive(Clone)]
//! struct Reads;
//!
//! impl RetryPolicy<u32, String, BoxError> for Reads {
//!     fn clone_request(&self, request: &u32) -> Option<u32> {
//!         Some(*request)
//!     }
//!     fn decide(&self, _: u32, _: &u32, result: Result<&String, &BoxError>) -> Decision {
//!         match result {
//!             Ok(_) => Decision::Done,
//!             Err(_) => Decision::Retry,
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let numbers = Profile::Standard.settings();
//! let breaker = CircuitBreaker::new("greeter", numbers.breaker);
//! breaker.on_transition(|change| println!("{}: {:?}", change.breaker, change.to));
//!
//! let greeter = ServiceBuilder::new()
//!     // the caller's patience, shared by all attempts
//!     .layer(TimeoutLayer::new(numbers.timeout))
//!     // each attempt passes everything below anew
//!     .layer(RetryLayer::new(Reads, numbers.retry, RetryBudget::new(numbers.budget)))
//!     // a retry is a call too
//!     .layer(RateLimitLayer::new(RateLimit::per_second(1_000).burst(100)))
//!     // our own queue, which the breaker must not take for the callee
//!     .layer(BulkheadLayer::with(Bulkhead::new(numbers.bulkhead)))
//!     // sees timeouts, because they stand inside
//!     .layer(CircuitBreakerLayer::new(breaker, Classified::errors()))
//!     // one silent attempt must leave time for another
//!     .layer(TimeoutLayer::new(numbers.attempt_timeout))
//!     .service(service_fn(|id: u32| async move { Ok::<_, BoxError>(format!("hello, {id}")) }));
//!
//! assert_eq!(greeter.oneshot(7).await?, "hello, 7");
//! # Ok(())
//! # }
//! ```
//!
//! Others stand where they are needed:
//!
//! | layer | where | answers |
//! |---|---|---|
//! | [`fallback`] | outside everything | all attempts failed: is something less worth having? |
//! | [`cache`] | outside retry | the same is asked again and again |
//! | [`hedge`] | inside retry, outside the bulkhead | one call in twenty is slow by accident |
//! | [`throttle`] | in place of the breaker | the callee is not gone, it has too much to do |
//! | [`adaptive`] | in place of the bulkhead | nobody knows how many calls there is room for |
//! | [`shed`] | outermost on a server | more comes in than can be answered in time |
//! | [`chaos`] | next to the call | does all of this do what it promises? |
//!
//! Behind a balancer the breaker moves below it, one per endpoint, and takes the
//! attempt timeout with it: then an open circuit is an endpoint to walk past
//! (see [`CircuitBreaker::would_permit`]) instead of an error.
//!
//! # What is not here
//!
//! No layer makes a request idempotent: whether it may be sent twice is for a
//! [`RetryPolicy`] to say. No layer knows HTTP or gRPC: what an answer means is
//! for [`Classify`] to say. And nothing here helps a callee that is simply too slow for what it is asked: these layers keep its
//! trouble from spreading, they do not make it faster.
//!
//! # How it is built
//!
//! Each pattern has a brain, which is told the time and decides, and a thin
//! skin, which asks tokio's clock. The brains are tested by tables and
//! properties, the skins under a paused clock. All waits, queues and tables have
//! a bound. All services fail with [`BoxError`]; each layer's own error is a
//! small type that can be found with `downcast_ref`.

pub mod timeout;

pub mod retry;

pub mod hedge;

pub mod breaker;

pub mod throttle;

pub mod bulkhead;

pub mod adaptive;

pub mod shed;

pub mod rate_limit;

pub mod cache;

pub mod fallback;

pub mod chaos;

mod classify;
mod detour;
mod guard;
mod histogram;
mod judged;
mod profile;
mod rejection;
mod ring;
mod sync;

pub use adaptive::{
    AdaptiveLayer, AdaptiveLimit, AdaptiveSettings, AdaptiveStats, ConcurrencyLimited,
};
pub use breaker::{
    BreakerEvent, BreakerSettings, CircuitBreaker, CircuitBreakerLayer, CircuitOpen,
    InvalidSettings, Permit, State, Stats, Transition,
};
pub use bulkhead::{Bulkhead, BulkheadFull, BulkheadLayer, BulkheadSettings};
pub use cache::{Cache, CacheLayer, CacheSettings, Cached};
pub use chaos::{Chaos, ChaosLayer};
pub use classify::{Class, Classified, Classify};
pub use detour::Detour;
pub use fallback::{Answer, Degraded, FallbackLayer};
pub use guard::{Guard, GuardLayer, Guarded};
pub use hedge::{Hedge, HedgeLayer, HedgePolicy, HedgeSettings, HedgeStats};
pub use judged::{Judged, Settle, Verdict};
pub use profile::{Profile, ProfileSettings};
pub use rate_limit::{
    Gcra, KeyedRateLimit, KeyedRateLimitLayer, RateLimit, RateLimitLayer, RateLimited, RateLimiter,
};
pub use rejection::{is_local_rejection, retry_in};
pub use retry::{
    Backoff, BudgetSettings, Decision, RetryBudget, RetryLayer, RetryPolicy, RetrySettings,
};
pub use shed::{LoadShedLayer, Priority, Shed, ShedSettings, ShedStats, Shedder};
pub use throttle::{Throttle, ThrottleLayer, ThrottleSettings, ThrottleStats, Throttled};
pub use timeout::{Elapsed, TimeoutLayer};

/// The error of all services here: the layer's own type, or the inner service's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
