//! A topic whose handlers fail is left alone for a while.
//!
//! Where most messages fail, the fault is seldom theirs: a table is missing, a partner
//! is down, a release is broken. Going on would only bring one message after the other
//! to the dead letters. So a circuit breaker judges the deliveries of a topic: over a
//! rate of failures nothing is taken any more, then a few are tried, and it goes on when
//! those succeed. What was fetched and not tried is given back, for others to have.

use std::sync::{Arc, Weak};

use chassis_core::{Env, Error};
use chassis_resilience::{CircuitBreaker, Permit, State};
use tokio::time::Instant;

use super::config::PauseConfig;
use super::meters::Meters;

pub(super) struct Pausing {
    breaker: CircuitBreaker,
    /// The health check may outlive this.
    _alive: Arc<()>,
}

impl Pausing {
    pub(super) fn new(env: &Env, config: &PauseConfig, name: String, meters: &Meters) -> Pausing {
        let breaker = CircuitBreaker::new(name.as_str(), config.breaker());
        if config.failure_rate == 0.0 {
            breaker.disable();
        }
        let alive = Arc::new(());
        breaker.on_transition({
            let (paused, pauses, breaker) = (meters.paused.clone(), meters.pauses.clone(), name.clone());
            move |change| {
                let (from, to) = (change.from.as_str(), change.to.as_str());
                paused.set(i64::from(change.to != State::Closed));
                match change.to {
                    State::Open if change.from == State::Closed => {
                        pauses.inc();
                        tracing::error!(%breaker, from, to, "too many messages fail, the consumer pauses");
                    }
                    State::Open => tracing::warn!(%breaker, from, to, "the consumer pauses again"),
                    State::HalfOpen => tracing::info!(%breaker, from, to, "the consumer tries a few messages"),
                    _ => tracing::info!(%breaker, from, to, "the consumer goes on"),
                }
            }
        });
        let (gauge, token) = (breaker.clone(), Arc::downgrade(&alive));
        env.health().add(format!("consumer {name}"), false, move || {
            let paused = is_paused(&gauge, &token);
            async move {
                if paused {
                    let message = "too many messages fail, so the consumer takes none or few";
                    return Err(Error::unavailable("CONSUMER_PAUSED", message));
                }
                Ok(())
            }
        });
        Pausing { breaker, _alive: alive }
    }

    /// Whether a message may be taken now.
    pub(super) fn may_take(&self) -> bool {
        self.breaker.would_permit(Instant::now())
    }

    /// Whether those in hand and not begun should go back.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.state() == State::Open
    }

    /// Leave to try a message; its outcome is to be told.
    pub(super) fn enter(&self) -> Option<Permit> {
        self.breaker.try_acquire(Instant::now()).ok()
    }
}

fn is_paused(breaker: &CircuitBreaker, alive: &Weak<()>) -> bool {
    alive.strong_count() > 0 && matches!(breaker.state(), State::Open | State::HalfOpen)
}
