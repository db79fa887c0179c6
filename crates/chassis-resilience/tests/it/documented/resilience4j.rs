//! Resilience4j, <https://resilience4j.readme.io/docs>: circuit breaker, bulkhead, rate limiter.

use chassis_resilience::{
    BreakerEvent, BreakerSettings, Bulkhead, BulkheadSettings, CircuitOpen, RateLimit, RateLimiter,
    State,
};
use tokio::time::Instant;

use super::{SECOND, SLOW, feed, rates};
use crate::MS;

fn settings() -> BreakerSettings {
    BreakerSettings { min_calls: 10, ..BreakerSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_the_failure_rate_is_equal_or_greater_than_the_threshold() {
    let breaker = rates(settings());
    feed(&breaker, "sssssffff");
    assert_eq!(breaker.state(), State::Closed);
    feed(&breaker, "f");
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_the_percentage_of_slow_calls_reaches_the_threshold() {
    let slow = BreakerSettings { slow_call: Some(SLOW), slow_rate: 0.5, ..settings() };
    let breaker = rates(slow);
    feed(&breaker, "sssssllll");
    assert_eq!(breaker.state(), State::Closed);
    feed(&breaker, "l");
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn rates_are_calculated_only_after_the_minimum_number_of_calls() {
    let breaker = rates(settings());
    feed(&breaker, "fffffffff");
    assert_eq!(breaker.state(), State::Closed, "nine failures of nine");
}

#[tokio::test(start_paused = true)]
async fn a_count_based_window_aggregates_the_last_n_calls() {
    let breaker = rates(BreakerSettings { window_calls: Some(10), ..settings() });
    feed(&breaker, &"s".repeat(1_000));
    tokio::time::advance(3_600 * SECOND).await;
    feed(&breaker, "ffff");
    assert_eq!(breaker.state(), State::Closed, "four of the last ten");
    feed(&breaker, "f");
    assert_eq!(breaker.state(), State::Open, "five of the last ten");
}

#[tokio::test(start_paused = true)]
async fn a_time_based_window_aggregates_the_last_n_seconds() {
    let breaker = rates(settings());
    feed(&breaker, "fffff");
    tokio::time::advance(11 * SECOND).await;
    feed(&breaker, "ssssss");
    feed(&breaker, "ffff");
    assert_eq!(breaker.state(), State::Closed, "the first five are forgotten");
}

#[tokio::test(start_paused = true)]
async fn the_window_does_not_limit_how_many_calls_run_at_the_same_time() {
    let breaker = rates(BreakerSettings { window_calls: Some(15), ..settings() });
    let permits: Vec<_> = (0..20).map(|_| breaker.try_acquire(Instant::now()).unwrap()).collect();
    assert_eq!(permits.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_rejects_calls() {
    let breaker = rates(settings());
    feed(&breaker, "ffffffffff");
    assert!(matches!(breaker.try_acquire(Instant::now()), Err(CircuitOpen { .. })));
    assert_eq!(breaker.stats().rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn half_open_permits_a_number_of_calls_and_rejects_the_rest_until_they_complete() {
    let breaker = rates(settings());
    feed(&breaker, "ffffffffff");
    tokio::time::advance(breaker.settings().open_for).await;
    let probes: Vec<_> = (0..3).map(|_| breaker.try_acquire(Instant::now()).unwrap()).collect();
    assert!(breaker.try_acquire(Instant::now()).is_err());
    probes.into_iter().for_each(|probe| probe.success(MS));
    assert_eq!(breaker.state(), State::Closed);
}

/// Theirs compares the rate of the probes; ours needs no more than one bad probe.
#[tokio::test(start_paused = true)]
async fn half_open_changes_back_to_open_on_failure_or_slowness() {
    for bad in ["sf", "sl"] {
        let breaker = rates(BreakerSettings { slow_call: Some(SLOW), ..settings() });
        feed(&breaker, "ffffffffff");
        tokio::time::advance(breaker.settings().open_for).await;
        feed(&breaker, bad);
        assert_eq!(breaker.state(), State::Open, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_exceptions_count_neither_as_failure_nor_as_success() {
    let breaker = rates(settings());
    feed(&breaker, &"i".repeat(100));
    assert_eq!(breaker.stats().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn disabled_allows_forced_open_denies_and_metrics_only_records() {
    let breaker = rates(settings());
    breaker.disable();
    assert_eq!((feed(&breaker, &"f".repeat(50)), breaker.stats().calls), (50, 0));
    breaker.force_open();
    assert_eq!(feed(&breaker, "sssss"), 0);
    breaker.metrics_only();
    assert_eq!((feed(&breaker, &"f".repeat(50)), breaker.stats().calls), (50, 50));
    assert_eq!(breaker.state(), State::MetricsOnly);
    breaker.reset();
    assert_eq!((breaker.state(), breaker.stats().calls), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn state_transitions_and_rejections_are_published_as_events() {
    let breaker = rates(settings());
    let mut events = breaker.events();
    feed(&breaker, "fffffffffff");
    assert!(matches!(events.recv().await, Ok(BreakerEvent::Transition(_))));
    assert!(matches!(events.recv().await, Ok(BreakerEvent::Rejected(_))));
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_blocks_for_the_maximum_wait_and_then_rejects() {
    let bulkhead =
        Bulkhead::new(BulkheadSettings { max_concurrent: 1, max_waiting: 10, max_wait: 50 * MS });
    let _held = bulkhead.enter().await.unwrap();
    let began = Instant::now();
    assert!(bulkhead.enter().await.is_err());
    assert_eq!(began.elapsed(), 50 * MS);
}

/// Theirs refreshes all permissions at the start of a period; ours one after the other.
#[tokio::test(start_paused = true)]
async fn a_rate_limiter_gives_limit_for_period_permissions() {
    let limiter = RateLimiter::new(RateLimit::per_second(50).burst(50));
    let taken = |limiter: &RateLimiter| (0..100).filter(|_| limiter.check().is_ok()).count();
    assert_eq!(taken(&limiter), 50);
    tokio::time::advance(SECOND).await;
    assert_eq!(taken(&limiter), 50);
}
