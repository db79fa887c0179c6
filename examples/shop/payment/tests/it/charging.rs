//! Charging: once for each order, with one answer for repeated calls.

use std::sync::Arc;

use chassis::core::Code;
use futures_util::future::join_all;
use shop_contracts::payment::v1::ChargeRequest;

use crate::support::{Shop, assert_refused, five_euros, good};

#[tokio::test]
async fn money_is_taken_once_however_often_it_is_asked_for() {
    let shop = Shop::open(good()).await;
    let first = shop.charge(five_euros("o-1")).await.unwrap();
    let again = shop.charge(five_euros("o-1")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(shop.kept_by_the_bank().await, 500);

    let payment = shop.payment("o-1").await.unwrap();
    assert_eq!(payment.payment_id, first);
    assert_eq!(payment.status, "charged");
    assert_eq!((payment.amount_minor, payment.currency.as_str()), (500, "EUR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_taken_once_from_calls_at_the_same_time() {
    let shop = Arc::new(Shop::open(good()).await);
    let answers = join_all((0..16).map(|_| {
        let shop = shop.clone();
        tokio::spawn(async move { shop.charge(five_euros("o-1")).await })
    }));
    let mut ids: Vec<String> =
        answers.await.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(shop.kept_by_the_bank().await, 500);
}

#[tokio::test]
async fn a_declined_card_stays_declined() {
    let shop = Shop::open(good()).await;
    let declined = ChargeRequest { card_token: "tok_declined".to_owned(), ..five_euros("o-1") };
    for _ in 0..2 {
        let answer = shop.charge(declined.clone()).await;
        assert_refused(answer, Code::FailedPrecondition, "CARD_DECLINED");
    }
    assert_eq!(shop.status("o-1").await, "declined");
    assert_eq!(shop.kept_by_the_bank().await, 0);

    // The undo of a charge that never happened.
    shop.refund("o-1").await.unwrap();
    assert_eq!(shop.status("o-1").await, "declined");
}

#[tokio::test]
async fn an_order_has_one_payment() {
    let shop = Shop::open(good()).await;
    shop.charge(five_euros("o-1")).await.unwrap();
    let others = [
        ChargeRequest { amount_minor: 501, ..five_euros("o-1") },
        ChargeRequest { currency: "CHF".to_owned(), ..five_euros("o-1") },
        ChargeRequest { card_token: "tok_other".to_owned(), ..five_euros("o-1") },
        ChargeRequest { idempotency_key: "another".to_owned(), ..five_euros("o-1") },
    ];
    for other in others {
        let answer = shop.charge(other).await;
        assert_refused(answer, Code::AlreadyExists, "PAYMENT_DIFFERS");
    }
    assert_eq!(shop.kept_by_the_bank().await, 500);
}

#[tokio::test]
async fn a_wrong_request_names_the_field() {
    let shop = Shop::open(good()).await;
    let cases = [
        (ChargeRequest { order_id: String::new(), ..five_euros("o-1") }, "order_id"),
        (
            ChargeRequest { idempotency_key: "k".repeat(129), ..five_euros("o-1") },
            "idempotency_key",
        ),
        (ChargeRequest { amount_minor: 0, ..five_euros("o-1") }, "amount_minor"),
        (ChargeRequest { amount_minor: -500, ..five_euros("o-1") }, "amount_minor"),
        (ChargeRequest { currency: "euro".to_owned(), ..five_euros("o-1") }, "currency"),
        (ChargeRequest { card_token: String::new(), ..five_euros("o-1") }, "card_token"),
    ];
    for (request, field) in cases {
        let answer = shop.charge(request).await;
        let error = assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(error.fields()[0].field, field);
    }
    assert_refused(shop.payment("o-1").await, Code::NotFound, "PAYMENT_NOT_FOUND");
}
