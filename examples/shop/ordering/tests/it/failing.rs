//! Callees that fail for a while, or whose answer is lost: nothing happens twice, nothing is
//! left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fakes::{BAD_CARD, Fault};
use crate::support::{Shop, order};

#[tokio::test]
async fn a_charge_whose_answer_is_lost_is_not_made_twice() {
    // Repeated by the client below the saga, and by the saga itself.
    for max_attempts in [3, 1] {
        let shop = Shop::open_with(|config| {
            config.payment.attempt_timeout = Duration::from_millis(300);
            config.payment.max_attempts = max_attempts;
        })
        .await;
        shop.world.fail("charge", [Fault::LoseAnswer]);
        let id = shop.place(&order("tok_visa", "cup", 2)).await;
        shop.until(&id, "confirmed").await;

        let keys = shop.world.calls("charge");
        assert!(keys.len() >= 2, "{keys:?}");
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1, "one key: {keys:?}");
        assert_eq!(shop.world.charged(&id), 2_400);
        assert!(shop.world.calls("refund").is_empty());
    }
}

#[tokio::test]
async fn a_payment_that_never_answers_is_refunded() {
    let shop = Shop::open_with(|config| {
        config.payment.attempt_timeout = Duration::from_millis(100);
        config.payment.max_attempts = 1;
        config.saga.attempts = 2;
    })
    .await;
    shop.world.fail("charge", [Fault::LoseAnswer, Fault::LoseAnswer]);
    let id = shop.place(&order("tok_visa", "cup", 2)).await;
    let cancelled = shop.until(&id, "cancelled").await;
    assert_eq!(cancelled["reason"], "NO_ANSWER_IN_TIME");
    assert_eq!(shop.world.calls("charge").len(), 2);
    assert_eq!(shop.world.calls("refund").len(), 1);
    assert_eq!((shop.world.charged(&id), shop.world.available("cup")), (0, 100));
}

#[tokio::test]
async fn a_catalog_that_refuses_for_a_while_is_asked_again() {
    let shop = Shop::open().await;
    // The first question, when the order is placed, is answered.
    let held = shop.world.hold("get-product");
    held.send_replace(true);
    // More than one call of the client tries by itself.
    shop.world.fail("get-product", vec![Fault::Refuse; 4]);
    let id = shop.place(&order("tok_visa", "cup", 1)).await;
    shop.until(&id, "confirmed").await;
    assert_eq!(shop.world.calls("get-product").len(), 6);
    assert_eq!(shop.world.charged(&id), 1_200);
}

#[tokio::test]
async fn a_service_that_is_gone_and_comes_back_is_waited_for() {
    let shop = Shop::open_with(|config| {
        config.saga.attempts = 1_000;
        config.inventory.breaker.open_for = Duration::from_millis(50);
        config.inventory.breaker.open_max = Duration::from_millis(50);
    })
    .await;
    shop.inventory().cut();
    let id = shop.place(&order("tok_visa", "cup", 1)).await;
    shop.until_retried("reserve-stock", 2).await;
    assert_eq!(shop.get(&format!("/orders/{id}")).await.body["status"], "pending");

    shop.inventory().heal();
    shop.until(&id, "confirmed").await;
    assert_eq!((shop.world.reserved(&id), shop.world.charged(&id)), (1, 1_200));
}

#[tokio::test]
async fn an_undo_is_repeated_until_it_is_done() {
    let shop = Shop::open_with(|config| config.inventory.max_attempts = 1).await;
    shop.world.fail("release", vec![Fault::Refuse; 4]);
    let id = shop.place(&order(BAD_CARD, "cup", 3)).await;
    assert_eq!(shop.until(&id, "cancelled").await["reason"], "CARD_DECLINED");
    assert_eq!(shop.world.calls("release").len(), 5);
    assert_eq!(shop.world.available("cup"), 100);
}
