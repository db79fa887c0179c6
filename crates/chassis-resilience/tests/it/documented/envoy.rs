//! Envoy, <https://www.envoyproxy.io/docs>: circuit breaking, retry budget, adaptive concurrency,
//! outlier detection, admission control, rate limit, fault injection.

use std::time::Duration;

use chassis_resilience::{
    AdaptiveLimit, AdaptiveSettings, BoxError, BreakerSettings, Bulkhead, BulkheadSettings,
    CircuitBreaker, Class, RateLimit, Settle, State, Throttle, Verdict,
    rate_limit::shared::{
        BoxFuture, Grant, OnStoreDown, SharedRateLimit, SharedSettings, TokenStore,
    },
};
use tokio::time::Instant;

use super::{SECOND, budget, feed};
use crate::MS;

#[tokio::test(start_paused = true)]
async fn max_requests_and_max_pending_overflow_at_once_and_are_counted() {
    let bulkhead =
        Bulkhead::new(BulkheadSettings { max_concurrent: 2, max_waiting: 1, max_wait: SECOND });
    let _held = (bulkhead.enter().await.unwrap(), bulkhead.enter().await.unwrap());
    let waiting = bulkhead.clone();
    let _pending = tokio::spawn(async move { waiting.enter().await.map(drop) });
    tokio::task::yield_now().await;
    let began = Instant::now();
    assert!(bulkhead.enter().await.is_err());
    assert_eq!((began.elapsed(), bulkhead.rejected()), (Duration::ZERO, 1));
}

/// Theirs is a share of what is active; ours of the requests of the last ten seconds.
#[tokio::test(start_paused = true)]
async fn the_retry_budget_is_a_share_of_requests_with_a_minimum() {
    let budget = budget(0.2, 0);
    (0..100).for_each(|_| budget.deposit());
    assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
}

#[tokio::test(start_paused = true)]
async fn five_consecutive_gateway_failures_eject() {
    let breaker = CircuitBreaker::new("host", BreakerSettings::default());
    feed(&breaker, "fffff");
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_ejection_time_grows_with_the_number_of_ejections_up_to_the_maximum() {
    let breaker = CircuitBreaker::new("host", BreakerSettings::default());
    feed(&breaker, "fffff");
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let wait = breaker.try_acquire(Instant::now()).unwrap_err().retry_in;
        longest = longest.max(wait);
        assert!(wait <= 60 * SECOND);
        tokio::time::advance(wait).await;
        feed(&breaker, "f");
    }
    assert!(longest > 30 * SECOND, "{longest:?}");
}

/// Calls that take `latency`, as many at a time as there is room for.
async fn load(limit: &AdaptiveLimit, rounds: u32, latency: Duration) -> u32 {
    for _ in 0..rounds {
        let now = Instant::now();
        let places: Vec<_> = std::iter::from_fn(|| limit.try_enter(now).ok()).collect();
        tokio::time::advance(latency).await;
        for place in places {
            place.settle(Verdict { class: Class::Success, latency, retry_after: None });
        }
    }
    limit.stats().limit
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_by_its_headroom_while_the_latency_stays_at_its_least() {
    let limit = AdaptiveLimit::default();
    assert!(load(&limit, 500, 10 * MS).await > 100);
}

#[tokio::test(start_paused = true)]
async fn the_limit_shrinks_when_the_latency_rises_above_the_least() {
    let limit = AdaptiveLimit::default();
    let before = load(&limit, 500, 10 * MS).await;
    let after = load(&limit, 50, 40 * MS).await;
    assert!(after < before / 2, "{before} {after}");
}

#[tokio::test(start_paused = true)]
async fn the_least_latency_is_measured_anew_at_the_minimum_concurrency() {
    let limit = AdaptiveLimit::default();
    load(&limit, 500, 10 * MS).await;
    let mut least = u32::MAX;
    for _ in 0..8_000 {
        least = least.min(load(&limit, 1, 10 * MS).await);
    }
    assert_eq!(least, AdaptiveSettings::default().min_limit, "within 80 seconds");
    assert!(load(&limit, 100, 10 * MS).await > 50, "and then it goes on where it was");
}

#[tokio::test(start_paused = true)]
async fn admission_control_rejects_by_the_success_rate_of_the_past() {
    let throttle = Throttle::default();
    for n in 0..10_000 {
        if let Ok(permit) = throttle.try_acquire(Instant::now()) {
            let class = if n % 10 == 0 { Class::Success } else { Class::Failure };
            permit.settle(Verdict { class, latency: MS, retry_after: None });
        }
        tokio::time::advance(MS).await;
    }
    assert!(throttle.stats().share > 0.5, "{:?}", throttle.stats());
}

struct Down;

impl TokenStore for Down {
    fn take<'a>(
        &'a self,
        _: &'a str,
        _: RateLimit,
        _: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        Box::pin(async { Err("down".into()) })
    }
}

#[tokio::test(start_paused = true)]
async fn failure_mode_deny_decides_what_holds_without_the_rate_limit_service() {
    let limit = RateLimit::per_second(30);
    for (on_store_down, passes) in
        [(OnStoreDown::Refuse, false), (OnStoreDown::LocalShare { instances: 3 }, true)]
    {
        let settings = SharedSettings { on_store_down, ..SharedSettings::default() };
        let shared = SharedRateLimit::new(Down, limit, settings);
        assert_eq!(shared.check("key").await.is_ok(), passes, "{on_store_down:?}");
    }
}
