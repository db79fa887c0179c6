//! Retry: attempts, waits, and the budget that bounds them.

use std::time::Duration;

use chassis_resilience::{
    Backoff, BoxError, BudgetSettings, BulkheadFull, BulkheadLayer, Decision, RetryBudget,
    RetryLayer, RetryPolicy, RetrySettings,
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

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_sent_at_once_also_where_retries_are_off() {
    let layer = RetryLayer::new(Always(Decision::RetryFree), settings(1), budget(0.0, 0));
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let begun = Instant::now();
    let call = tokio::spawn(layer.layer(callee).oneshot(5));
    for _ in 0..2 {
        let (_, answer) = next(&mut handle).await;
        answer.send_error("not sent");
    }
    call.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// Retries errors until a deadline, and writes the attempt into the request.
#[derive(Clone)]
struct Until(Option<Instant>, Decision);

impl RetryPolicy<u32, u32, BoxError> for Until {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn decide(&self, _: u32, _: &u32, result: Result<&u32, &BoxError>) -> Decision {
        if result.is_ok() { Decision::Done } else { self.1 }
    }

    fn deadline(&self, _: &u32) -> Option<Instant> {
        self.0
    }

    fn mark_attempt(&self, request: &mut u32, attempt: u32) {
        *request = attempt;
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    let budget = RetryBudget::default();
    let policy = Until(Some(Instant::now() + 1_000 * MS), Decision::RetryAfter(1_000 * MS));
    let layer = RetryLayer::new(policy, settings(3), budget.clone());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(layer.layer(callee).oneshot(1));
    let (_, answer) = next(&mut handle).await;
    answer.send_error("busy");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "busy");
    silence(&mut handle, 10_000 * MS).await;
    assert_eq!(budget.stats().retries, 0, "a retry that is not sent is not paid");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_unread_is_sent_again_once_for_free() {
    let budget = budget(0.0, 1);
    let layer = RetryLayer::new(Until(None, Decision::Refused), settings(2), budget.clone());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    let (_, answer) = next(&mut handle).await;
    let refused = Instant::now();
    answer.send_error("refused");
    let (request, answer) = next(&mut handle).await;
    assert!(refused.elapsed() <= MS, "at once");
    assert_eq!(request, 0, "it is still the first attempt");
    assert_eq!(budget.stats().retries, 0);
    answer.send_error("refused");
    let (request, answer) = next(&mut handle).await;
    assert_eq!(request, 2, "the second time it is an attempt like any other");
    assert_eq!(budget.stats().retries, 1);
    answer.send_error("refused");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "refused");
    silence(&mut handle, 10_000 * MS).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_local_limit_refused_is_never_retried() {
    let layer = RetryLayer::new(Always(Decision::Retry), settings(3), RetryBudget::default());
    let bulkhead = BulkheadLayer::new(1, Duration::ZERO);
    let _held = bulkhead.handle().enter().await.unwrap();
    let service = layer.layer(
        bulkhead.layer(service_fn(|_: u32| async { Err::<u32, BoxError>("unreached".into()) })),
    );
    assert!(service.oneshot(1).await.unwrap_err().is::<BulkheadFull>());
    assert_eq!(bulkhead.handle().rejected(), 1, "one attempt");
}
