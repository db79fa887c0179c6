//! Retry: attempts, waits, and the budget that bounds them.

use std::time::Duration;

use chassis_resilience::{
    Backoff, BoxError, BudgetSettings, Decision, RetryBudget, RetryLayer, RetryPolicy,
    RetrySettings,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

use crate::{MS, next, silence};

/// Every error is followed by the same decision.
#[derive(Clone)]
struct Always(Decision);

impl<E> RetryPolicy<u32, u32, E> for Always {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn decide(&self, _: u32, _: &u32, result: Result<&u32, &E>) -> Decision {
        match result {
            Ok(_) => Decision::Done,
            Err(_) => self.0,
        }
    }
}

/// A request that must not be sent twice.
#[derive(Clone)]
struct Once;

impl<E> RetryPolicy<u32, u32, E> for Once {
    fn clone_request(&self, _: &u32) -> Option<u32> {
        None
    }

    fn decide(&self, _: u32, _: &u32, _: Result<&u32, &E>) -> Decision {
        Decision::Retry
    }
}

fn settings(max_attempts: u32) -> RetrySettings {
    RetrySettings { max_attempts, ..RetrySettings::default() }
}

fn budget(ratio: f64, min_per_second: u32) -> RetryBudget {
    RetryBudget::new(BudgetSettings { ratio, min_per_second, ttl: Duration::from_secs(10) })
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_hides_a_failure() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = RetryLayer::new(Always(Decision::Retry), settings(3), RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    let (_, answer) = next(&mut handle).await;
    answer.send_error("gone");
    let (request, answer) = next(&mut handle).await;
    answer.send_response(request * 2);
    assert_eq!(call.await.unwrap().unwrap(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_goes_to_the_caller() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = RetryLayer::new(Always(Decision::Retry), settings(3), RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    for attempt in 1..=3 {
        let (_, answer) = next(&mut handle).await;
        answer.send_error(format!("failure {attempt}"));
    }
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "failure 3");
    silence(&mut handle, 10_000 * MS).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_sent_once() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = RetryLayer::new(Once, settings(3), RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    let (_, answer) = next(&mut handle).await;
    answer.send_error("gone");
    assert!(call.await.unwrap().is_err());
    silence(&mut handle, 10_000 * MS).await;
}

#[tokio::test(start_paused = true)]
async fn waits_stay_below_the_backoff() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let backoff = Backoff { base: 100 * MS, cap: 150 * MS, factor: 2.0 };
    let settings = RetrySettings { backoff, ..settings(5) };
    let layer = RetryLayer::new(Always(Decision::Retry), settings, RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    let mut last = Instant::now();
    for attempt in 0..5 {
        let (_, answer) = next(&mut handle).await;
        if attempt > 0 {
            // tokio's timer has a grain of one millisecond.
            assert!(last.elapsed() <= backoff.ceiling(attempt) + MS);
        }
        last = Instant::now();
        answer.send_error("gone");
    }
    assert!(call.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_server_sets_the_earliest_time() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let decision = Decision::RetryAfter(2_000 * MS);
    let layer = RetryLayer::new(Always(decision), settings(2), RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    let (_, answer) = next(&mut handle).await;
    answer.send_error("busy");
    let asked = Instant::now();
    let (_, answer) = next(&mut handle).await;
    assert!(asked.elapsed() >= 2_000 * MS);
    answer.send_response(1);
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_too_long_ends_it() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let decision = Decision::RetryAfter(3_600_000 * MS);
    let budget = RetryBudget::default();
    let layer = RetryLayer::new(Always(decision), settings(3), budget.clone());
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    let (_, answer) = next(&mut handle).await;
    answer.send_error("busy");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "busy");
    assert_eq!(budget.stats().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_retries_under_total_failure() {
    let budget = budget(0.2, 1);
    let layer = RetryLayer::new(Always(Decision::Retry), settings(5), budget.clone());
    let callee = service_fn(|_: u32| async { Err::<u32, BoxError>("down".into()) });
    let mut service = layer.layer(callee);
    for request in 0..1_000 {
        let ready = service.ready().await.unwrap();
        assert!(ready.call(request).await.is_err());
    }
    let stats = budget.stats();
    assert_eq!(stats.requests, 1_000);
    // A fifth of the requests, and ten more; each request alone wanted four.
    assert!(stats.retries >= 200, "{stats:?}");
    assert!(stats.retries <= 210, "{stats:?}");
    assert!(stats.refused > 0, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_costs_nothing() {
    let budget = budget(0.0, 0);
    let layer = RetryLayer::new(Always(Decision::RetryFree), settings(3), budget.clone());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    for _ in 0..2 {
        let (_, answer) = next(&mut handle).await;
        answer.send_error("not sent");
    }
    let (_, answer) = next(&mut handle).await;
    answer.send_response(1);
    assert_eq!(call.await.unwrap().unwrap(), 1);
    assert_eq!(budget.stats().retries, 0);
}
