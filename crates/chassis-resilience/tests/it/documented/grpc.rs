//! gRFC A6, client retries and hedging:
//! <https://github.com/grpc/proposal/blob/master/A6-client-retries.md>.

use std::time::Duration;

use chassis_resilience::{
    Backoff, Decision, Hedge, HedgeLayer, HedgeSettings, RetryBudget, RetryLayer, RetrySettings,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_test::mock;

use super::{Always, SECOND, budget};
use crate::{MS, next, silence};

fn layer(decision: Decision, max_attempts: u32, budget: RetryBudget) -> RetryLayer<Always> {
    let settings = RetrySettings { max_attempts, ..RetrySettings::default() };
    RetryLayer::new(Always(decision), settings, budget)
}

#[tokio::test(start_paused = true)]
async fn max_attempts_includes_the_original_call() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::Retry, 4, RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    for _ in 0..4 {
        next(&mut handle).await.1.send_error("unavailable");
    }
    assert!(call.await.unwrap().is_err());
    silence(&mut handle, 10 * SECOND).await;
}

/// A6 until proposal#452 of 2024; since then it spreads by a fifth only.
#[test]
fn the_backoff_is_random_between_zero_and_the_grown_ceiling() {
    let backoff = Backoff { base: 100 * MS, cap: SECOND, factor: 2.0 };
    for (attempt, ceiling) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (50, 1_000)] {
        assert_eq!(backoff.delay(attempt, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(attempt, 1.0), ceiling * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_throttled_when_too_many_fail() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::Retry, 4, budget(0.0, 0));
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    next(&mut handle).await.1.send_error("unavailable");
    assert!(call.await.unwrap().is_err());
    silence(&mut handle, 10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn pushback_sets_the_delay_of_the_next_attempt() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::RetryAfter(700 * MS), 2, RetryBudget::default());
    let _call = tokio::spawn(layer.layer(callee).oneshot(0));
    next(&mut handle).await.1.send_error("unavailable");
    silence(&mut handle, 700 * MS).await;
    next(&mut handle).await.1.send_response(0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_pushes_back_with_never_is_not_asked_again() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::Done, 4, RetryBudget::default());
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    next(&mut handle).await.1.send_error("unavailable");
    assert!(call.await.unwrap().is_err());
    silence(&mut handle, 10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_transparent_retry_is_made_at_once_and_only_once() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::Refused, 2, budget(0.0, 0));
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    let began = Instant::now();
    next(&mut handle).await.1.send_error("refused stream");
    next(&mut handle).await.1.send_error("refused stream");
    assert!(began.elapsed() <= MS);
    assert!(call.await.unwrap().is_err(), "the second is a retry, and the budget is empty");
    silence(&mut handle, 10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_previous_attempts_is_told_without_the_transparent_one() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let layer = layer(Decision::Refused, 3, RetryBudget::default());
    let _call = tokio::spawn(layer.layer(callee).oneshot(0));
    let mut told = Vec::new();
    for _ in 0..4 {
        let (request, answer) = next(&mut handle).await;
        told.push(request);
        answer.send_error("refused stream");
    }
    assert_eq!(told, [0, 0, 2, 3]);
}

async fn hedged(
    budget: RetryBudget,
) -> (chassis_resilience::hedge::HedgeService<Always, mock::Mock<u32, u32>>, mock::Handle<u32, u32>)
{
    let settings = HedgeSettings { min_samples: 1, min_delay: 20 * MS, ..HedgeSettings::default() };
    let layer = HedgeLayer::new(Always(Decision::Done), Hedge::new(settings), budget);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let call = tokio::spawn(service.clone().oneshot(0));
    next(&mut handle).await.1.send_response(0);
    call.await.unwrap().unwrap();
    (service, handle)
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_leaves_the_others_running() {
    let (service, mut handle) = hedged(RetryBudget::default()).await;
    let call = tokio::spawn(service.oneshot(0));
    let (_, first) = next(&mut handle).await;
    next(&mut handle).await.1.send_error("unavailable");
    silence(&mut handle, 100 * MS).await;
    first.send_response(9);
    assert_eq!(call.await.unwrap().unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_throttled_like_retries() {
    let (service, mut handle) = hedged(budget(0.0, 0)).await;
    let _call = tokio::spawn(service.oneshot(0));
    let (_, _first) = next(&mut handle).await;
    silence(&mut handle, 10 * SECOND).await;
}
