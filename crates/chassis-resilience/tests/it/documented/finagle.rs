//! Finagle, <https://twitter.github.io/finagle/guide/Clients.html>: `RetryBudget`,
//! `FailureAccrualFactory`, `RequeueFilter`.

use chassis_resilience::{
    BoxError, BreakerSettings, CircuitBreaker, Decision, RetryBudget, RetryLayer, RetrySettings,
    State,
};
use tower::{Layer, ServiceExt, service_fn};

use super::{Always, SECOND, budget, feed};

fn withdraw_all(budget: &RetryBudget) -> usize {
    (0..100_000).take_while(|_| budget.withdraw()).count()
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_twenty_percent_of_requests_and_ten_retries_a_second() {
    let budget = RetryBudget::default();
    assert_eq!(withdraw_all(&budget), 100, "ten a second, for ten seconds");
    (0..1_000).for_each(|_| budget.deposit());
    assert_eq!(withdraw_all(&budget), 200);
}

#[tokio::test(start_paused = true)]
async fn deposits_live_for_ten_seconds() {
    let budget = budget(1.0, 0);
    (0..10).for_each(|_| budget.deposit());
    tokio::time::advance(8 * SECOND).await;
    assert_eq!(budget.balance(), 10);
    tokio::time::advance(3 * SECOND).await;
    assert_eq!(budget.balance(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_budget_is_shared_by_all_that_retry() {
    let budget = budget(0.0, 1);
    let fails = service_fn(|_: u32| async { Err::<u32, BoxError>("down".into()) });
    let settings = RetrySettings { max_attempts: 10, ..RetrySettings::default() };
    for _ in 0..5 {
        let layer = RetryLayer::new(Always(Decision::Retry), settings, budget.clone());
        layer.layer(fails).oneshot(1).await.unwrap_err();
    }
    assert!(budget.stats().retries <= 20, "{:?}", budget.stats());
    assert!(budget.stats().refused > 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_requeued_without_paying() {
    let budget = budget(0.0, 0);
    let fails = service_fn(|_: u32| async { Err::<u32, BoxError>("not written".into()) });
    let layer =
        RetryLayer::new(Always(Decision::RetryFree), RetrySettings::default(), budget.clone());
    layer.layer(fails).oneshot(1).await.unwrap_err();
    assert_eq!((budget.stats().retries, budget.stats().refused), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn five_consecutive_failures_mark_an_endpoint_dead() {
    let breaker = CircuitBreaker::new("endpoint", BreakerSettings::default());
    feed(&breaker, "ffff");
    feed(&breaker, "sffff");
    assert_eq!(breaker.state(), State::Closed);
    feed(&breaker, "f");
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn it_is_dead_for_an_equal_jittered_backoff() {
    let mut waits = Vec::new();
    for _ in 0..50 {
        let breaker = CircuitBreaker::new("endpoint", BreakerSettings::default());
        feed(&breaker, "fffff");
        waits.push(breaker.try_acquire(tokio::time::Instant::now()).unwrap_err().retry_in);
    }
    let whole = BreakerSettings::default().open_for;
    assert!(waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole));
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 40, "they do not come back together");
}
