//! Refunding: gives back once, and bars an order that was never charged.

use std::sync::Arc;

use chassis::core::Code;
use futures_util::future::join_all;

use crate::support::{Shop, assert_refused, five_euros, good};

#[tokio::test]
async fn money_is_given_back_once() {
    let shop = Shop::open(good()).await;
    shop.charge(five_euros("o-1")).await.unwrap();
    shop.charge(five_euros("o-2")).await.unwrap();
    for _ in 0..3 {
        shop.refund("o-1").await.unwrap();
    }
    assert_eq!(shop.kept_by_the_bank().await, 500, "the other order's money stays");
    assert_eq!(shop.status("o-1").await, "refunded");
    assert_eq!(shop.status("o-2").await, "charged");
}

#[tokio::test]
async fn a_refunded_order_cannot_be_charged_again() {
    let shop = Shop::open(good()).await;
    shop.charge(five_euros("o-1")).await.unwrap();
    shop.refund("o-1").await.unwrap();
    let again = shop.charge(five_euros("o-1")).await;
    assert_refused(again, Code::FailedPrecondition, "ORDER_REFUNDED");
    assert_eq!(shop.kept_by_the_bank().await, 0);
}

#[tokio::test]
async fn a_refund_that_overtakes_its_charge_wins() {
    let shop = Shop::open(good()).await;
    shop.refund("o-1").await.unwrap();
    shop.refund("o-1").await.unwrap();
    let shop = shop.reopen(good()).await;
    let late = shop.charge(five_euros("o-1")).await;
    assert_refused(late, Code::FailedPrecondition, "ORDER_REFUNDED");
    assert_eq!(shop.kept_by_the_bank().await, 0);
    // Nothing was ever taken, so there is no payment to show.
    assert_refused(shop.payment("o-1").await, Code::NotFound, "PAYMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_beside_its_charge_leaves_nothing_taken() {
    let shop = Arc::new(Shop::open(good()).await);
    let pairs = join_all((0..24).map(|order| {
        let shop = shop.clone();
        tokio::spawn(async move {
            let id = format!("o-{order}");
            let (charged, refunded) = tokio::join!(shop.charge(five_euros(&id)), shop.refund(&id));
            refunded.unwrap();
            if charged.is_err() {
                assert_refused(charged, Code::FailedPrecondition, "ORDER_REFUNDED");
            }
        })
    }));
    for pair in pairs.await {
        pair.unwrap();
    }
    assert_eq!(shop.kept_by_the_bank().await, 0);
}
