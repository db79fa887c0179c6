//! Messages about parcels: twice, too early, about nothing.

use crate::support::{Shop, order, parcel_shipped};

#[tokio::test]
async fn a_parcel_that_is_told_of_twice_is_shipped_once() {
    let shop = Shop::open_with(|config| {
        // The broker forgets ids at once, so the very same message is delivered twice.
        config.broker.duplicate_window = std::time::Duration::from_millis(1);
    })
    .await;
    let id = shop.place(&order("tok_visa", "cup", 1)).await;
    shop.until(&id, "confirmed").await;
    let message = parcel_shipped(&id);
    shop.broker.publish(message.clone()).await.unwrap();
    let shipped = shop.until(&id, "shipped").await;

    shop.broker.publish(message).await.unwrap();
    // Another message that says the same.
    shop.parcel_shipped(&id).await;
    shop.until_heard(3).await;
    assert_eq!(shop.get(&format!("/orders/{id}")).await.body, shipped);
    assert_eq!(shop.told(&id).await.len(), 1);
    assert_eq!((shop.count("consumer_handled"), shop.count("consumer_repeated")), (2, 1));
}

#[tokio::test]
async fn a_parcel_that_is_told_of_too_early_waits_for_its_order() {
    let shop = Shop::open().await;
    let held = shop.world.hold("charge");
    let id = shop.place(&order("tok_visa", "cup", 1)).await;
    shop.until_called("charge", 1).await;
    shop.parcel_shipped(&id).await;
    shop.until_heard(1).await;
    assert_eq!(shop.get(&format!("/orders/{id}")).await.body["status"], "pending");

    held.send_replace(true);
    shop.until(&id, "shipped").await;
    let told = shop.told(&id).await;
    assert_eq!((told.len(), told[0].0.as_str()), (1, "ordering.order-confirmed"));
}

#[tokio::test]
async fn a_parcel_of_an_unknown_order_harms_nobody() {
    let shop = Shop::open().await;
    shop.parcel_shipped("no-such-order").await;
    shop.until_heard(1).await;
    assert_eq!(shop.count("consumer_handled"), 1);
    let id = shop.place(&order("tok_visa", "cup", 1)).await;
    shop.until(&id, "confirmed").await;
}

#[tokio::test]
async fn a_parcel_of_a_cancelled_order_changes_nothing() {
    let shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "mug", 1)).await;
    let cancelled = shop.until(&id, "cancelled").await;
    shop.parcel_shipped(&id).await;
    shop.until_heard(1).await;
    assert_eq!(shop.get(&format!("/orders/{id}")).await.body, cancelled);
}
