//! Circuit breaker: stop asking someone who cannot answer.
//!
//! A callee that is down costs every caller a full timeout and gets no chance to
//! recover under the load of hopeless calls. The breaker watches the answers,
//! refuses calls for a while once too many failed, then lets a few probes
//! through, and lets everyone through again when those succeed ("Circuit
//! Breaker", Michael Nygard, *Release It!*).
//!
//! The states and their order are carried by failsafe's `StateMachine`, the
//! count of consecutive failures by its policy. The gate around it adds what a
//! fleet needs: rates over a sliding window, a limited number of probes, and
//! permits that know which state they were given in, so that a late answer from
//! before a transition changes nothing.
//!
//! A breaker judges one callee. It does not retry, it does not time out, and it
//! does not choose another endpoint: a balancer does, by asking
//! [`CircuitBreaker::would_permit`].
//!
//! A timeout belongs *inside* the breaker. One that stands outside drops the
//! future, and a dropped future says nothing about the callee; only if it was
//! held for at least [`BreakerSettings::slow_call`] it counts as a slow call.

mod error;
mod gate;
mod handle;
mod machine;
mod permit;
mod settings;
mod stats;
mod window;

pub use error::{CircuitOpen, InvalidSettings};
pub use handle::CircuitBreaker;
pub use permit::Permit;
pub use settings::BreakerSettings;
pub use stats::{BreakerEvent, State, Stats, Transition};

/// Puts a [`CircuitBreaker`] on a service. It takes the breaker as a handle, because the
/// breaker belongs to the callee and outlives any one stack of layers.
pub type CircuitBreakerLayer<C> = crate::GuardLayer<CircuitBreaker, C>;
/// Makes calls only with a permit of its [`CircuitBreaker`]. A call that is dropped gives its
/// permit back.
pub type CircuitBreakerService<S, C> = crate::Guarded<S, CircuitBreaker, C>;
