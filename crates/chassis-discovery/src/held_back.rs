//! The guard of a client's calls: those that are held back at once, before they take a place.
//!
//! A rate, a throttle and a measured limit are three guards of one shape, and each is off unless
//! it is asked for. As one guard they cost a client that has none of them nothing, and one that
//! has some a single layer. They stand above the time-out of an attempt, because an attempt that
//! is late is the commonest thing that a throttle should know of.

use std::sync::Arc;

use chassis_core::BoxError;
use chassis_core::metrics::{Counter, Gauge, Metrics};
use chassis_resilience::adaptive::{AdaptiveLimit, Place};
use chassis_resilience::rate_limit::RateLimiter;
use chassis_resilience::throttle::{Throttle, ThrottlePermit};
use chassis_resilience::{Class, Classify, Guard, Settle, Verdict, is_local_rejection};
use tokio::time::Instant;

use crate::{ClientConfig, Target, provably_not_sent};

/// Holds calls of one client back, as its settings say. Clones share it.
#[derive(Clone)]
pub struct HoldBack(Arc<Limits>);

struct Limits {
    throttle: Option<Throttle>,
    adaptive: Option<AdaptiveLimit>,
    rate: Option<RateLimiter>,
    shown: Shown,
}

struct Shown {
    throttle: Counter,
    adaptive: Counter,
    rate: Counter,
    limit: Gauge,
}

impl Shown {
    fn new(target: &Target, metrics: &Metrics) -> Shown {
        let held_back = |by| {
            metrics.counter(
                "client_held_back_calls",
                "Attempts that were not made, because of the rate, the throttle or the measured \
                 limit of the client.",
                &[("service", &target.service), ("protocol", &target.protocol), ("by", by)],
            )
        };
        Shown {
            throttle: held_back("throttle"),
            adaptive: held_back("adaptive"),
            rate: held_back("rate"),
            limit: metrics.gauge(
                "client_concurrency_limit",
                "Calls that a client may have under way by what it measures; 0 if it does not.",
                &[("service", &target.service), ("protocol", &target.protocol)],
            ),
        }
    }
}

impl HoldBack {
    /// What these settings hold back; `None` if that is nothing.
    #[must_use]
    pub fn new(config: &ClientConfig, target: &Target, metrics: &Metrics) -> Option<HoldBack> {
        let throttle = config.throttle.settings().map(Throttle::new);
        let adaptive = config.adaptive.settings().map(AdaptiveLimit::new);
        let rate = config.rate_limit.limit().map(RateLimiter::new);
        if throttle.is_none() && adaptive.is_none() && rate.is_none() {
            return None;
        }
        let shown = Shown::new(target, metrics);
        Some(HoldBack(Arc::new(Limits { throttle, adaptive, rate, shown })))
    }
}

impl<Req> Guard<Req> for HoldBack {
    type Account = Account;
    type Refused = BoxError;

    fn enter(&self, _: &Req, now: Instant) -> Result<Account, BoxError> {
        let Limits { throttle, adaptive, rate, shown } = &*self.0;
        let throttle = throttle.as_ref().map(|throttle| throttle.try_acquire(now));
        let throttle = throttle.transpose().inspect_err(|_| shown.throttle.inc())?;
        let adaptive = match adaptive {
            None => None,
            Some(adaptive) => {
                let place = adaptive.try_enter(now).inspect_err(|_| shown.adaptive.inc())?;
                shown.limit.set(adaptive.stats().limit.into());
                Some(place)
            }
        };
        // Last: what the others refuse has used up nothing.
        if let Some(rate) = rate {
            rate.check().inspect_err(|_| shown.rate.inc())?;
        }
        Ok(Account { throttle, adaptive })
    }
}

/// The account of a call that was let through.
#[derive(Debug)]
pub struct Account {
    throttle: Option<ThrottlePermit>,
    adaptive: Option<Place>,
}

impl Settle for Account {
    fn settle(self, verdict: Verdict) {
        self.throttle.settle(verdict);
        self.adaptive.settle(verdict);
    }
}

/// Judges as `C` does, but for what never left this process: that says nothing of the callee.
#[derive(Clone, Copy, Debug)]
pub struct IfSent<C>(pub C);

impl<T, C: Classify<T, BoxError>> Classify<T, BoxError> for IfSent<C> {
    fn classify(&self, result: Result<&T, &BoxError>) -> Class {
        match result {
            Err(error) if is_local_rejection(&**error) || provably_not_sent(&**error) => {
                Class::Ignore
            }
            other => self.0.classify(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis_resilience::{BulkheadFull, ConcurrencyLimited, RateLimited, Throttled};

    use super::*;

    fn target() -> Target {
        Target::new("greeter", "http")
    }

    fn held_back(config: &ClientConfig, metrics: &Metrics) -> HoldBack {
        config.validate("clients.greeter").unwrap();
        HoldBack::new(config, &target(), metrics).unwrap()
    }

    fn enter(guard: &HoldBack) -> Result<Account, BoxError> {
        guard.enter(&(), Instant::now())
    }

    fn end(account: Account, class: Class) {
        account.settle(Verdict { class, latency: Duration::ZERO, retry_after: None });
    }

    #[test]
    fn by_default_nothing_is_held_back() {
        let metrics = Metrics::default();
        assert!(HoldBack::new(&ClientConfig::default(), &target(), &metrics).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_them_is_a_setting_and_is_counted() {
        let metrics = Metrics::default();
        let mut config = ClientConfig::default();
        config.rate_limit.enabled = true;
        config.rate_limit.burst = 3;
        let guard = held_back(&config, &metrics);
        for _ in 0..3 {
            end(enter(&guard).unwrap(), Class::Success);
        }
        assert!(enter(&guard).unwrap_err().is::<RateLimited>());

        let mut config = ClientConfig::default();
        config.adaptive.enabled = true;
        (config.adaptive.min_limit, config.adaptive.initial_limit) = (2, 2);
        let guard = held_back(&config, &metrics);
        let both = [enter(&guard).unwrap(), enter(&guard).unwrap()];
        assert!(enter(&guard).unwrap_err().is::<ConcurrencyLimited>());
        drop(both);
        end(enter(&guard).unwrap(), Class::Success);

        let mut config = ClientConfig::default();
        config.throttle.enabled = true;
        let guard = held_back(&config, &metrics);
        let mut refused = 0;
        for _ in 0..1_000 {
            match enter(&guard) {
                Ok(account) => end(account, Class::Failure),
                Err(error) => {
                    assert!(error.is::<Throttled>());
                    refused += 1;
                }
            }
        }
        assert!(refused > 500, "{refused} of 1000 that all fail");

        let count = |by| {
            let labels = [("service", "greeter"), ("protocol", "http"), ("by", by)];
            metrics.counter("client_held_back_calls", "", &labels).get()
        };
        assert_eq!(["rate", "adaptive", "throttle"].map(count), [1, 1, refused]);
    }

    #[test]
    fn what_never_left_says_nothing_of_the_callee() {
        let judge = IfSent(|_: Result<&(), &BoxError>| Class::Failure);
        let full = BulkheadFull { limit: 1, waited: Duration::ZERO };
        let nobody = crate::NoEndpoints { target: target() };
        for (error, class) in [
            (BoxError::from(full), Class::Ignore),
            (BoxError::from(nobody), Class::Ignore),
            (BoxError::from("reset"), Class::Failure),
        ] {
            assert_eq!(judge.classify(Err(&error)), class, "{error}");
        }
    }
}
