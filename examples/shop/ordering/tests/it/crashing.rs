//! The process dies in the middle of a checkout; another one starts on the same database.
//!
//! At each step, before and after it took effect: the saga goes on, ends as it should, and
//! every effect is there once.

use futures_util::future::join_all;

use crate::fakes::{BAD_CARD, Fault};
use crate::support::{Shop, order};

/// Lets the process die while this call is under way, and gives the shop with its order.
async fn crash_at(method: &'static str, fault: Fault, card: &str) -> (Shop, String) {
    let mut shop = Shop::open().await;
    if method == "get-product" {
        // The question that is asked when the order is placed is not the one meant.
        shop.world.hold(method).send_replace(true);
    }
    shop.world.fail(method, [fault]);
    let id = shop.place(&order(card, "cup", 2)).await;
    shop.until_called(method, if method == "get-product" { 2 } else { 1 }).await;
    shop.crash().await;
    shop.restart().await;
    (shop, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_way_to_a_parcel() {
    let points = ["get-product", "reserve", "charge"]
        .into_iter()
        .flat_map(|method| [(method, Fault::Hang), (method, Fault::LoseAnswer)]);
    join_all(points.map(async |(method, fault)| {
        let (shop, id) = crash_at(method, fault, "tok_visa").await;
        shop.until(&id, "confirmed").await;
        shop.parcel_shipped(&id).await;
        shop.until(&id, "shipped").await;
        assert_eq!((shop.world.available("cup"), shop.world.charged(&id)), (98, 2_400));
        assert_eq!(shop.told(&id).await.len(), 1, "{method}");
        for undo in ["release", "refund"] {
            assert!(shop.world.calls(undo).is_empty(), "{undo} after a crash at {method}");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_way_back() {
    let points = [("release", Fault::Hang), ("release", Fault::LoseAnswer)];
    join_all(points.map(async |(method, fault)| {
        let (shop, id) = crash_at(method, fault, BAD_CARD).await;
        assert_eq!(shop.until(&id, "cancelled").await["reason"], "CARD_DECLINED");
        assert_eq!((shop.world.available("cup"), shop.world.charged(&id)), (100, 0));
        let told = shop.told(&id).await;
        assert_eq!((told.len(), told[0].0.as_str()), (1, "ordering.order-cancelled"));
    }))
    .await;
}

#[tokio::test]
async fn while_it_waits_for_the_parcel() {
    let mut shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "cup", 2)).await;
    shop.until(&id, "confirmed").await;
    shop.crash().await;
    // It leaves while nobody is there to hear it.
    shop.parcel_shipped(&id).await;
    shop.restart().await;
    shop.until(&id, "shipped").await;
    assert_eq!((shop.world.available("cup"), shop.world.charged(&id)), (98, 2_400));
    assert_eq!(shop.told(&id).await.len(), 1);
}
