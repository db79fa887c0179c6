//! One parcel for each order, and one message about it.

use chassis::messaging::Event;
use shop_contracts::events::ParcelShipped;

use crate::support::{Shop, confirmed};

#[tokio::test]
async fn a_confirmed_order_becomes_a_parcel_that_is_told_of() {
    let shop = Shop::open().await;
    let mut parcels = shop.listen(ParcelShipped::TOPIC).await;
    shop.publish(confirmed("o-1")).await;
    let message = parcels.next().await;
    assert_eq!((message.source.as_str(), message.key.as_deref()), ("shipping", Some("o-1")));
    let parcel: ParcelShipped = message.to_event().unwrap();
    assert_eq!((parcel.order_id.as_str(), parcel.customer_id.as_str()), ("o-1", "ada"));
    assert!(!parcel.parcel_id.is_empty() && parcel.tracking.starts_with("CH"), "{parcel:?}");
}

#[tokio::test]
async fn the_trace_of_the_order_goes_on_with_the_parcel() {
    let shop = Shop::open().await;
    let mut parcels = shop.listen(ParcelShipped::TOPIC).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    shop.publish(confirmed("o-1").with_header("traceparent", traceparent)).await;
    let message = parcels.next().await;
    assert!(message.header("traceparent").unwrap().contains(trace), "{message:?}");
}

#[tokio::test]
async fn an_order_that_is_told_of_again_and_again_has_one_parcel() {
    let shop = Shop::open().await;
    let mut parcels = shop.listen(ParcelShipped::TOPIC).await;
    let message = confirmed("o-1");
    shop.publish(message.clone()).await;
    shop.until_answered(1).await;
    // The very same message, and another one that says the same.
    shop.publish(message).await;
    shop.publish(confirmed("o-1")).await;
    shop.until_answered(3).await;
    assert_eq!((shop.count("consumer_handled"), shop.count("consumer_repeated")), (2, 1));

    shop.publish(confirmed("o-2")).await;
    let first: ParcelShipped = parcels.next_event().await;
    let second: ParcelShipped = parcels.next_event().await;
    assert_eq!((first.order_id.as_str(), second.order_id.as_str()), ("o-1", "o-2"));
    let each = vec!["o-1".to_owned(), "o-2".to_owned()];
    assert_eq!(shop.packed_and_told().await, (each.clone(), each));
}
