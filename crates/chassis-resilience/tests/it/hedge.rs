//! Hedge: the second copy, who wins, and who pays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError, BudgetSettings, Hedge, HedgeLayer, HedgePolicy, HedgeSettings, RetryBudget,
    hedge::HedgeService,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_test::mock::{self, Handle, Mock};

use crate::{MS, next, silence};

/// Even requests are safe to do twice.
#[derive(Clone)]
struct Even;

impl<E> HedgePolicy<u32, u32, E> for Even {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        request.is_multiple_of(2).then_some(*request)
    }
}

fn budget(min_per_second: u32) -> RetryBudget {
    RetryBudget::new(BudgetSettings { ratio: 0.0, min_per_second, ttl: Duration::from_secs(1) })
}

/// A service that has measured a hundred answers of 10 ms.
async fn measured(
    budget: &RetryBudget,
) -> (HedgeService<Even, Mock<u32, u32>>, Handle<u32, u32>, Hedge) {
    let hedge = Hedge::default();
    let layer = HedgeLayer::new(Even, hedge.clone(), budget.clone());
    let (callee, mut handle): (Mock<u32, u32>, _) = mock::pair();
    let service = layer.layer(callee);
    for _ in 0..100 {
        let call = tokio::spawn(service.clone().oneshot(2));
        let (_, answer) = next(&mut handle).await;
        tokio::time::advance(10 * MS).await;
        answer.send_response(1);
        call.await.unwrap().unwrap();
    }
    assert!(hedge.delay().unwrap() >= 10 * MS && hedge.delay().unwrap() < 11 * MS);
    (service, handle, hedge)
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_sent_again_and_the_first_answer_counts() {
    let (service, mut handle, hedge) = measured(&budget(10)).await;
    let call = tokio::spawn(service.clone().oneshot(2));
    let (_, _loser) = next(&mut handle).await;
    let asked = Instant::now();
    let (_, winner) = next(&mut handle).await;
    assert!(asked.elapsed() >= 10 * MS && asked.elapsed() <= 13 * MS, "{:?}", asked.elapsed());
    winner.send_response(7);
    assert_eq!(call.await.unwrap().unwrap(), 7);
    let stats = hedge.stats();
    assert_eq!((stats.sent, stats.won, stats.refused), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_may_still_win() {
    let (service, mut handle, hedge) = measured(&budget(10)).await;
    let call = tokio::spawn(service.clone().oneshot(2));
    let (_, first) = next(&mut handle).await;
    let (_, _copy) = next(&mut handle).await;
    first.send_response(3);
    assert_eq!(call.await.unwrap().unwrap(), 3);
    assert_eq!((hedge.stats().sent, hedge.stats().won), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_is_sent_once() {
    let (service, mut handle, hedge) = measured(&budget(10)).await;
    let _call = tokio::spawn(service.clone().oneshot(3));
    let (_, _answer) = next(&mut handle).await;
    silence(&mut handle, 10_000 * MS).await;
    assert_eq!(hedge.stats().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_before_the_callee_is_measured() {
    let layer = HedgeLayer::new(Even, Hedge::default(), budget(10));
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let _call = tokio::spawn(layer.layer(callee).oneshot(2));
    let (_, _answer) = next(&mut handle).await;
    silence(&mut handle, 10_000 * MS).await;
}

#[tokio::test(start_paused = true)]
async fn copies_are_paid_out_of_the_budget_of_the_retries() {
    let budget = budget(1);
    let (service, mut handle, hedge) = measured(&budget).await;
    let _first = tokio::spawn(service.clone().oneshot(2));
    let (_, _a) = next(&mut handle).await;
    let (_, _b) = next(&mut handle).await;
    let _second = tokio::spawn(service.clone().oneshot(4));
    let (_, _c) = next(&mut handle).await;
    silence(&mut handle, 100 * MS).await;
    assert_eq!((hedge.stats().sent, hedge.stats().refused), (1, 1));
    assert_eq!((budget.stats().retries, budget.stats().refused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_gives_way_to_the_other_attempt() {
    let (service, mut handle, _) = measured(&budget(10)).await;
    for first_fails in [true, false] {
        let call = tokio::spawn(service.clone().oneshot(2));
        let (_, first) = next(&mut handle).await;
        let (_, copy) = next(&mut handle).await;
        let (bad, good) = if first_fails { (first, copy) } else { (copy, first) };
        bad.send_error("gone");
        silence(&mut handle, MS).await;
        good.send_response(5);
        assert_eq!(call.await.unwrap().unwrap(), 5);
    }
    let call = tokio::spawn(service.clone().oneshot(2));
    let (_, first) = next(&mut handle).await;
    let (_, copy) = next(&mut handle).await;
    first.send_error("one");
    silence(&mut handle, MS).await;
    copy.send_error("two");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_delay_is_the_answer() {
    let (service, mut handle, hedge) = measured(&budget(10)).await;
    let call = tokio::spawn(service.clone().oneshot(2));
    let (_, first) = next(&mut handle).await;
    first.send_error("gone");
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "gone");
    silence(&mut handle, 100 * MS).await;
    assert_eq!(hedge.stats().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_dropped_and_a_caller_who_leaves_drops_both() {
    let alive = Arc::new(());
    let held = alive.clone();
    let calls = Arc::new(AtomicU32::new(0));
    let hang_from = calls.clone();
    // After the hundred answers that are measured, the first attempt of each request hangs.
    let callee = service_fn(move |request: u32| {
        let held = held.clone();
        let nth = hang_from.fetch_add(1, Ordering::Relaxed);
        async move {
            let _held = held;
            if nth == 100 || request == 4 {
                std::future::pending::<()>().await;
            }
            Ok::<u32, BoxError>(nth)
        }
    });
    let service = HedgeLayer::new(Even, Hedge::default(), budget(10)).layer(callee);
    for _ in 0..100 {
        service.clone().oneshot(2).await.unwrap();
    }
    let in_use = || Arc::strong_count(&alive) - 1;
    let idle = in_use();
    assert_eq!(service.clone().oneshot(2).await.unwrap(), 101);
    assert_eq!(in_use(), idle, "the loser is gone");

    let call = tokio::time::timeout(100 * MS, service.clone().oneshot(4));
    assert!(call.await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 104, "both attempts hang");
    assert_eq!(in_use(), idle, "both are gone");
}

/// One call in twenty-five takes two seconds, the others 10 ms.
#[tokio::test(start_paused = true)]
async fn the_tail_is_cut_at_a_small_price() {
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let callee = service_fn(move |_: u32| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let slow = nth % 25 == 24;
            tokio::time::sleep(if slow { 2_000 * MS } else { 10 * MS }).await;
            Ok::<u32, BoxError>(nth)
        }
    });
    let settings = HedgeSettings { min_samples: 20, ..HedgeSettings::default() };
    let layer = HedgeLayer::new(Even, Hedge::new(settings), RetryBudget::default()).without_retry();
    let service = layer.layer(callee);
    let slow = AtomicU64::new(0);
    for _ in 0..1_000 {
        let started = Instant::now();
        service.clone().oneshot(2).await.unwrap();
        if started.elapsed() > 100 * MS {
            slow.fetch_add(1, Ordering::Relaxed);
        }
    }
    let sent = sent.load(Ordering::Relaxed);
    assert!(slow.load(Ordering::Relaxed) <= 2, "{slow:?} slow calls of 40");
    assert!(sent <= 1_060, "{sent} calls for 1000");
}
