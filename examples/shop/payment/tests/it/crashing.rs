//! The gap between the provider's answer and our commit.
//!
//! A provider that does its work and loses the answer leaves exactly what a
//! crash in that gap leaves: money taken, an intent written down, no outcome.

use std::time::Duration;

use chassis::core::Code;
use shop_payment::config::ProviderConfig;

use crate::support::{Shop, assert_refused, five_euros, forgetful, good};

const PROVIDER_GONE: (Code, &str) = (Code::Unavailable, "PROVIDER_UNAVAILABLE");

/// Charged at the provider, not known to us.
async fn crashed_after_the_charge() -> Shop {
    let shop = Shop::open(forgetful()).await;
    let answer = shop.charge(five_euros("o-1")).await;
    assert_refused(answer, PROVIDER_GONE.0, PROVIDER_GONE.1);
    assert_eq!(shop.kept_by_the_bank().await, 500);
    assert_eq!(shop.status("o-1").await, "pending");
    shop.reopen(good()).await
}

#[tokio::test]
async fn a_repeated_charge_finds_what_was_taken() {
    let shop = crashed_after_the_charge().await;
    shop.charge(five_euros("o-1")).await.unwrap();
    assert_eq!(shop.status("o-1").await, "charged");
    assert_eq!(shop.kept_by_the_bank().await, 500, "taken once");
}

#[tokio::test]
async fn a_refund_gives_back_what_nobody_knows_of() {
    let shop = crashed_after_the_charge().await;
    shop.refund("o-1").await.unwrap();
    assert_eq!(shop.status("o-1").await, "refunded");
    assert_eq!(shop.kept_by_the_bank().await, 0);
}

#[tokio::test]
async fn the_settler_finishes_a_charge_that_nobody_repeats() {
    let shop = crashed_after_the_charge().await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(shop.payments.settle(hour, 10).await.unwrap(), 0, "too young");
    assert_eq!(settle_all(&shop).await, 1);
    assert_eq!(shop.status("o-1").await, "charged");
    assert_eq!(settle_all(&shop).await, 0);
    assert_eq!(shop.kept_by_the_bank().await, 500, "taken once");
}

#[tokio::test]
async fn the_settler_finishes_a_refund_that_nobody_repeats() {
    let shop = Shop::open(good()).await;
    shop.charge(five_euros("o-1")).await.unwrap();
    let shop = shop.reopen(forgetful()).await;
    assert_refused(shop.refund("o-1").await, PROVIDER_GONE.0, PROVIDER_GONE.1);
    let late = shop.charge(five_euros("o-1")).await;
    assert_refused(late, Code::FailedPrecondition, "ORDER_REFUNDED");
    assert_eq!(shop.status("o-1").await, "charged", "not known to be given back");

    let shop = shop.reopen(good()).await;
    assert_eq!(settle_all(&shop).await, 1);
    assert_eq!(shop.status("o-1").await, "refunded");
    assert_eq!(shop.kept_by_the_bank().await, 0);
}

#[tokio::test]
async fn the_settler_leaves_what_the_provider_does_not_answer() {
    let shop = Shop::open(forgetful()).await;
    shop.charge(five_euros("o-1")).await.unwrap_err();
    assert_eq!(settle_all(&shop).await, 0);
    assert_eq!(shop.status("o-1").await, "pending");
}

#[tokio::test]
async fn a_call_that_is_dropped_midway_is_found_out_later() {
    let slow = ProviderConfig { slow_share: 1.0, slow_for: Duration::from_secs(60), ..good() };
    let shop = Shop::open(slow).await;
    {
        let call = shop.charge(five_euros("o-1"));
        let intent = async {
            while shop.payment("o-1").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = intent => {}
        }
    }
    assert_eq!(shop.status("o-1").await, "pending");
    let shop = shop.reopen(good()).await;
    shop.charge(five_euros("o-1")).await.unwrap();
    assert_eq!(shop.kept_by_the_bank().await, 500);
}

#[tokio::test]
async fn the_books_agree_after_a_day_with_a_bad_provider() {
    let mut bad = ProviderConfig { fail_share: 0.5, slow_share: 0.0, ..good() };
    bad.client.backoff = Duration::ZERO;
    bad.client.backoff_max = Duration::ZERO;
    // Half of all calls fail: an open circuit would only make the test wait.
    bad.client.breaker.consecutive_failures = 1_000;
    bad.client.breaker.min_calls = 100_000;
    let shop = Shop::open(bad).await;
    for order in 0..40 {
        let id = format!("o-{order}");
        // The caller repeats until it knows, as a saga does, within reason.
        let mut tries = 0..50;
        while shop.charge(five_euros(&id)).await.is_err() {
            tries.next().unwrap();
        }
        while order % 2 == 0 && shop.refund(&id).await.is_err() {
            tries.next().unwrap();
        }
    }
    assert_eq!(shop.kept_by_the_bank().await, 20 * 500);
    for order in 0..40 {
        let expected = if order % 2 == 0 { "refunded" } else { "charged" };
        assert_eq!(shop.status(&format!("o-{order}")).await, expected);
    }
}

async fn settle_all(shop: &Shop) -> usize {
    shop.payments.settle(Duration::ZERO, 10).await.unwrap()
}
