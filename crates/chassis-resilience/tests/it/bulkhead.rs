//! Bulkhead: few at a time, few waiting, not for long.

use std::time::Duration;

use chassis_resilience::{Bulkhead, BulkheadFull, BulkheadLayer, BulkheadSettings};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_test::mock;

use crate::{MS, cause, next, silence};

fn layer(max_concurrent: usize, max_waiting: usize) -> (BulkheadLayer, Bulkhead) {
    let bulkhead =
        Bulkhead::new(BulkheadSettings { max_concurrent, max_waiting, max_wait: 100 * MS });
    (BulkheadLayer::with(bulkhead.clone()), bulkhead)
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_place_that_is_freed() {
    let (layer, bulkhead) = layer(1, 1);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let first = tokio::spawn(service.clone().oneshot(1));
    let (_, answer) = next(&mut handle).await;
    let second = tokio::spawn(service.clone().oneshot(2));
    silence(&mut handle, 50 * MS).await;
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (1, 1));

    answer.send_response(1);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    let (request, answer) = next(&mut handle).await;
    answer.send_response(request);
    assert_eq!(second.await.unwrap().unwrap(), 2);
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    assert_eq!(bulkhead.rejected(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_allowed() {
    let (layer, bulkhead) = layer(1, 1);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let _first = tokio::spawn(service.clone().oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    let asked = Instant::now();
    let full = cause::<BulkheadFull>(service.clone().oneshot(2).await.unwrap_err());
    assert_eq!(asked.elapsed(), 100 * MS);
    assert_eq!((full.limit, full.waited), (1, 100 * MS));
    assert_eq!((bulkhead.waiting(), bulkhead.rejected()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let (layer, bulkhead) = layer(1, 1);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let _first = tokio::spawn(service.clone().oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    let _second = tokio::spawn(service.clone().oneshot(2));
    silence(&mut handle, MS).await;
    let asked = Instant::now();
    let full = cause::<BulkheadFull>(service.clone().oneshot(3).await.unwrap_err());
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(full.waited, Duration::ZERO);
    assert_eq!(bulkhead.rejected(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_frees_its_place_in_the_queue() {
    let (layer, bulkhead) = layer(1, 1);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let first = tokio::spawn(service.clone().oneshot(1));
    let (_, answer) = next(&mut handle).await;
    let second = tokio::spawn(service.clone().oneshot(2));
    silence(&mut handle, MS).await;
    assert_eq!(bulkhead.waiting(), 1);
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    assert_eq!(bulkhead.waiting(), 0);

    let third = tokio::spawn(service.clone().oneshot(3));
    silence(&mut handle, MS).await;
    assert_eq!(bulkhead.waiting(), 1);
    answer.send_response(1);
    first.await.unwrap().unwrap();
    let (request, answer) = next(&mut handle).await;
    assert_eq!(request, 3, "the one who left is not served");
    answer.send_response(request);
    assert_eq!(third.await.unwrap().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_frees_its_place() {
    let (layer, bulkhead) = layer(1, 0);
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let first = tokio::spawn(service.clone().oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_order_and_without_a_service_too() {
    let (_, bulkhead) = layer(1, 2);
    let slot = bulkhead.enter().await.unwrap();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move { bulkhead.enter().await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(bulkhead.waiting(), 2);
    drop(slot);
    // The place belongs to the first waiter, even before it has run.
    assert!(bulkhead.enter().await.is_err(), "no newcomer overtakes");
    for waiter in waiters {
        drop(waiter.await.unwrap().unwrap());
    }
    assert_eq!(bulkhead.in_flight(), 0);
}
