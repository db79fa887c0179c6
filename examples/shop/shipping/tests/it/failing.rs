//! A message that cannot be read, and a process that dies.

use std::collections::BTreeSet;

use chassis::messaging::consumer::{HEADER_ORIGINAL_ID, HEADER_REASON, dead_letter_topic};
use chassis::messaging::{Event, Message};
use shop_contracts::events::{OrderConfirmed, ParcelShipped};

use crate::support::{Shop, confirmed};

#[tokio::test]
async fn a_message_that_cannot_be_read_is_put_aside_and_the_next_is_handled() {
    let shop = Shop::open().await;
    let mut parcels = shop.listen(ParcelShipped::TOPIC).await;
    let mut dead = shop.listen(&dead_letter_topic("shipping", OrderConfirmed::TOPIC)).await;
    let broken = Message::new(OrderConfirmed::TOPIC, OrderConfirmed::TYPE, "{").with_key("o-1");
    let newer = Message::new(OrderConfirmed::TOPIC, "order-confirmed.v2", "{}").with_key("o-1");
    // All under one key, so that the last waits for the first two.
    for message in [broken.clone(), newer, confirmed("o-1")] {
        shop.publish(message).await;
    }
    let parcel: ParcelShipped = parcels.next_event().await;
    assert_eq!(parcel.order_id, "o-1");

    let letter = dead.next().await;
    assert_eq!(letter.header(HEADER_REASON), Some("UNDECODABLE_EVENT"));
    assert_eq!(letter.header(HEADER_ORIGINAL_ID), Some(&*broken.id));
    assert_eq!(letter.payload, broken.payload);
    assert_eq!(dead.next().await.header(HEADER_REASON), Some("UNKNOWN_EVENT_VERSION"));
    assert_eq!(shop.count("consumer_dead_lettered"), 2);
}

#[tokio::test]
async fn what_was_under_way_in_a_crash_is_finished_once() {
    const ORDERS: usize = 20;
    let mut shop = Shop::open().await;
    let mut parcels = shop.listen(ParcelShipped::TOPIC).await;
    for order in 0..ORDERS {
        shop.publish(confirmed(&format!("o-{order:02}"))).await;
    }
    // Some are packed by now, some of those are told of, others not even read.
    parcels.next().await;
    shop.crash().await;
    let each: Vec<_> = (0..ORDERS).map(|order| format!("o-{order:02}")).collect();
    let told = shop.until_packed(&each).await;
    assert_eq!(told, each);
    // The broker may be told twice of what was under way; each order must be among it.
    let mut heard = BTreeSet::new();
    while heard.len() < ORDERS - 1 {
        heard.insert(parcels.next_event::<ParcelShipped>().await.order_id);
    }
}
