//! The checkout to its ends: shipped, or cancelled with everything given back.

use serde_json::json;
use shop_contracts::events::{Line, OrderCancelled, OrderConfirmed};

use crate::fakes::BAD_CARD;
use crate::support::{Shop, order};

#[tokio::test]
async fn an_order_is_priced_reserved_charged_confirmed_and_shipped() {
    let shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "cup", 2)).await;
    let confirmed = shop.until(&id, "confirmed").await;
    assert_eq!((&confirmed["total_minor"], &confirmed["currency"]), (&json!(2_400), &json!("EUR")));
    assert_eq!((shop.world.reserved(&id), shop.world.charged(&id)), (2, 2_400));

    let (message, event) = shop.next::<OrderConfirmed>().await;
    assert_eq!((message.source.as_str(), message.key.as_deref()), ("ordering", Some(&*id)));
    let expected = OrderConfirmed {
        order_id: id.clone(),
        customer_id: "ada".to_owned(),
        lines: vec![Line { sku: "cup".to_owned(), quantity: 2 }],
        total_minor: 2_400,
        currency: "EUR".to_owned(),
    };
    assert_eq!(event, expected);

    shop.parcel_shipped(&id).await;
    let shipped = shop.until(&id, "shipped").await;
    assert_eq!(shipped["total_minor"], 2_400);
    assert_eq!((shop.world.reserved(&id), shop.world.charged(&id)), (2, 2_400));
    assert_eq!(shop.told(&id).await.len(), 1, "nothing more was told");
}

#[tokio::test]
async fn a_declined_card_gives_the_stock_back_and_cancels() {
    let shop = Shop::open().await;
    let id = shop.place(&order(BAD_CARD, "cup", 2)).await;
    let cancelled = shop.until(&id, "cancelled").await;
    assert_eq!(cancelled["reason"], "CARD_DECLINED");
    assert!(cancelled["total_minor"].is_null(), "nothing was paid: {cancelled}");
    assert_eq!((shop.world.available("cup"), shop.world.charged(&id)), (100, 0));
    assert_eq!(shop.world.calls("reserve").len(), 1);
    assert_eq!(shop.world.calls("release").len(), 1);

    let (_, event) = shop.next::<OrderCancelled>().await;
    let expected = OrderCancelled {
        order_id: id.clone(),
        customer_id: "ada".to_owned(),
        reason: "CARD_DECLINED".to_owned(),
    };
    assert_eq!(event, expected);
    let told = shop.told(&id).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "ordering.order-cancelled");
}

#[tokio::test]
async fn missing_stock_charges_nothing() {
    let shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "mug", 1)).await;
    let cancelled = shop.until(&id, "cancelled").await;
    assert_eq!(cancelled["reason"], "OUT_OF_STOCK");
    assert!(shop.world.calls("charge").is_empty(), "payment was not asked");
    let told = shop.told(&id).await;
    assert_eq!(
        told,
        [(
            "ordering.order-cancelled".to_owned(),
            json!({ "order_id": id, "customer_id": "ada", "reason": "OUT_OF_STOCK" }),
        )]
    );
}

#[tokio::test]
async fn the_last_piece_goes_to_one_of_two() {
    let shop = Shop::open().await;
    let body = order("tok_visa", "pot", 1);
    let (one, two) = tokio::join!(shop.place(&body), shop.place(&body));
    let mut ends = Vec::new();
    for id in [&one, &two] {
        let ended = chassis_test::eventually("the order ends", crate::support::SOON, async || {
            let order = shop.get(&format!("/orders/{id}")).await.body;
            (order["status"] != "pending").then_some(order)
        });
        ends.push(ended.await["status"].as_str().unwrap().to_owned());
    }
    ends.sort();
    assert_eq!(ends, ["cancelled", "confirmed"]);
    assert_eq!(shop.world.charged(&one) + shop.world.charged(&two), 3_490);
}

#[tokio::test]
async fn an_amount_that_no_number_holds_cancels() {
    let shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "gem", 100)).await;
    assert_eq!(shop.until(&id, "cancelled").await["reason"], "AMOUNT_TOO_LARGE");
    assert!(shop.world.calls("reserve").is_empty());
}
