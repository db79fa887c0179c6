//! Every event becomes news once; the newest stands first.

use chassis::messaging::Message;
use serde_json::Value;
use shop_contracts::events::{OrderCancelled, OrderConfirmed, ParcelShipped};

use crate::support::Shop;

fn confirmed(order: &str) -> OrderConfirmed {
    OrderConfirmed {
        order_id: order.to_owned(),
        customer_id: "ada".to_owned(),
        lines: Vec::new(),
        total_minor: 2_405,
        currency: "EUR".to_owned(),
    }
}

fn shipped(order: &str) -> ParcelShipped {
    ParcelShipped {
        parcel_id: "p-1".to_owned(),
        order_id: order.to_owned(),
        customer_id: "ada".to_owned(),
        tracking: "CH42".to_owned(),
    }
}

fn cancelled(order: &str) -> OrderCancelled {
    OrderCancelled {
        order_id: order.to_owned(),
        customer_id: "ada".to_owned(),
        reason: "OUT_OF_STOCK".to_owned(),
    }
}

fn kinds(news: &[Value]) -> Vec<(&str, &str)> {
    news.iter()
        .map(|one| (one["order_id"].as_str().unwrap(), one["kind"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn every_event_becomes_news_and_the_newest_stands_first() {
    let shop = Shop::open().await;
    shop.tell(&confirmed("o-1")).await;
    shop.tell(&shipped("o-1")).await;
    shop.tell(&cancelled("o-2")).await;
    let news = shop.news("ada").await;
    assert_eq!(
        kinds(&news),
        [("o-2", "order-cancelled"), ("o-1", "parcel-shipped"), ("o-1", "order-confirmed")]
    );
    for (one, says) in news.iter().zip(["run out", "CH42", "24.05 EUR"]) {
        assert!(one["text"].as_str().unwrap().contains(says), "{one}");
        assert!(one["time"].as_i64().unwrap() > 1_600_000_000_000, "{one}");
    }
}

#[tokio::test]
async fn the_news_of_one_order_are_listed_alone() {
    let shop = Shop::open().await;
    shop.tell(&confirmed("o-1")).await;
    shop.tell(&shipped("o-1")).await;
    shop.tell(&confirmed("o-2")).await;
    let news = shop.news_of("ada", "o-1").await;
    assert_eq!(kinds(&news), [("o-1", "parcel-shipped"), ("o-1", "order-confirmed")]);
    assert!(shop.news_of("bob", "o-1").await.is_empty());
    assert!(shop.news_of("ada", "o-3").await.is_empty());
}

#[tokio::test]
async fn the_same_news_twice_is_told_once() {
    let shop = Shop::open().await;
    let message = Message::event("ordering", &confirmed("o-1")).unwrap();
    shop.publish(message.clone()).await;
    shop.until_answered(1).await;
    let first = shop.news("ada").await;
    // The very same message, and another one that says the same.
    shop.publish(message).await;
    shop.tell(&confirmed("o-1")).await;
    shop.until_answered(3).await;
    assert_eq!((shop.count("consumer_handled"), shop.count("consumer_repeated")), (2, 1));
    assert_eq!(shop.news("ada").await, first);
    assert_eq!(kinds(&first), [("o-1", "order-confirmed")]);
}

#[tokio::test]
async fn nobody_reads_the_news_of_another() {
    let shop = Shop::open().await;
    shop.tell(&confirmed("o-1")).await;
    assert!(shop.news("bob").await.is_empty());
    assert!(shop.news("a%20d%2Fa").await.is_empty());
    assert_eq!(shop.news("ada").await.len(), 1);
}
