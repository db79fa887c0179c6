//! JetStream keeps the contract, also across restarts of the server.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::FromConsumer as _, consumer::pull};
use chassis_messaging::broker::conformance::{SCENARIOS, run_all};
use chassis_messaging::{Broker, BrokerConfig, Delivery, Message, Subscription};
use chassis_test::eventually;
use chassis_test::servers::Nats;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(30);

fn message(topic: &str, number: usize) -> Message {
    Message::new(topic, "note.v1", number.to_string()).with_key((number % 3).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn jetstream_passes_all_scenarios() {
    let url = Nats::shared().await.url().to_owned();
    let passed = run_all(move || {
        let config = BrokerConfig::at(url.clone());
        async move { Broker::connect(&config).await }
    });
    assert_eq!(passed.await, Ok(SCENARIOS.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_and_delivery_go_on_after_a_restart_of_the_server() {
    let nats = Nats::start().await;
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let short = Subscription {
        ack_wait: Duration::from_secs(1),
        ..Subscription::new("group", "notes.taken")
    };
    let mut deliveries = broker.subscribe(short).await.unwrap();
    let mut expected = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        for number in round * 10..round * 10 + 10 {
            let message = message("notes.taken", number);
            // The connection may be on its way back: the same id, again.
            eventually("the message is stored", SOON, async || {
                broker.publish(message.clone()).await.ok()
            })
            .await;
            expected.insert(number.to_string());
        }
        while seen.len() < expected.len() {
            let next = tokio::time::timeout(SOON, deliveries.next()).await.expect("a delivery");
            let delivery = next.unwrap().unwrap();
            seen.insert(String::from_utf8_lossy(&delivery.message.payload).into_owned());
            delivery.ack().await.unwrap();
        }
        nats.stop();
        nats.restart().await;
    }
    assert_eq!(seen, expected);
    eventually("the broker is healthy", SOON, async || broker.check().await.ok()).await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_and_consumer_come_back() {
    let nats = Nats::shared().await;
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let topic = format!("gone-{}.notes", uuid::Uuid::now_v7().simple());
    let stream = topic.split('.').next().unwrap().to_owned();
    let mut deliveries = broker.subscribe(Subscription::new("group", &topic)).await.unwrap();
    broker.publish(message(&topic, 1)).await.unwrap();
    deliveries.next().await.unwrap().unwrap().ack().await.unwrap();

    let client = async_nats::connect(nats.url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream(&stream).await.unwrap();

    eventually("the message is stored", SOON, async || {
        broker.publish(message(&topic, 2)).await.ok()
    })
    .await;
    let next = tokio::time::timeout(SOON, deliveries.next()).await.expect("a delivery");
    assert_eq!(next.unwrap().unwrap().message.payload, "2");
    broker.close().await;
}

/// The server knows which message is answered by its number alone, and the numbers of a stream
/// that was made again begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_before_a_loss_is_not_taken_for_one_to_another_message() {
    let nats = Nats::shared().await;
    let stream = format!("anew-{}", uuid::Uuid::now_v7().simple());
    let topic = format!("{stream}.notes");
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let mut deliveries = broker.subscribe(Subscription::new("group", &topic)).await.unwrap();
    broker.publish(message(&topic, 1)).await.unwrap();
    let next = timeout(SOON, deliveries.next()).await.expect("a delivery");
    let old = next.unwrap().unwrap();

    let client = async_nats::connect(nats.url()).await.unwrap();
    jetstream::new(client).delete_stream(&stream).await.unwrap();
    let other = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let new = message(&topic, 2);
    eventually("it is stored", SOON, async || other.publish(new.clone()).await.ok()).await;
    // It is refused: what was lost is to be published first. So it is found out.
    let _ = broker.publish(message(&topic, 1)).await;
    eventually("the loss is seen", SOON, async || old.in_progress().await.err()).await;

    let mut others = other.subscribe(Subscription::new("group", &topic)).await.unwrap();
    let next = timeout(SOON, others.next()).await.expect("what has its number now");
    let taken = next.unwrap().unwrap();
    let id = taken.message.id.clone();
    assert_eq!(old.ack().await.unwrap_err().reason(), "BROKER_UNAVAILABLE");
    taken.nak(Duration::ZERO).await.unwrap();
    // The second one may come before.
    let mut held = Vec::new();
    while held.last().is_none_or(|last: &Delivery| last.message.id != id) {
        let next = timeout(SOON, async {
            tokio::select! {
                one = deliveries.next() => one,
                one = others.next() => one,
            }
        });
        held.push(next.await.expect("it comes again").unwrap().unwrap());
    }
    broker.close().await;
    other.close().await;
}

/// An operator may have bounded what a request can ask for: who asks for more is told so at
/// once, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_is_not_repeated_at_once() {
    let nats = Nats::shared().await;
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let stream = format!("refused-{}", uuid::Uuid::now_v7().simple());
    let topic = format!("{stream}.notes");
    let subscription = Subscription { max_in_flight: 10, ..Subscription::new("group", &topic) };
    drop(broker.subscribe(subscription.clone()).await.unwrap());

    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = jetstream::new(client.clone());
    let bound = async |most: i64| {
        let name = format!("group={stream}=notes");
        let found = context.get_consumer_from_stream::<pull::Config, _, _>(&name, &stream).await;
        let config = found.unwrap().cached_info().config.clone();
        let config = pull::Config::try_from_consumer_config(config).unwrap();
        let config = pull::Config { max_batch: most, ..config };
        context.create_consumer_on_stream(config, &stream).await.unwrap();
    };
    bound(1).await;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.>");
    let mut requests = client.subscribe(next).await.unwrap();
    client.flush().await.unwrap();

    let start = Instant::now();
    let mut deliveries = broker.subscribe(subscription).await.unwrap();
    for _ in 0..3 {
        timeout(SOON, requests.next()).await.expect("a request").unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "after {:?}", start.elapsed());

    bound(0).await;
    broker.publish(message(&topic, 1)).await.unwrap();
    let next = timeout(SOON, deliveries.next()).await.expect("a delivery");
    assert_eq!(next.unwrap().unwrap().message.payload, "1");
    broker.close().await;
}

#[tokio::test]
async fn a_plain_client_finds_cloudevents_headers() {
    let nats = Nats::shared().await;
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let topic = format!("plain-{}.notes", uuid::Uuid::now_v7().simple());
    let message = message(&topic, 1);
    broker.publish(message.clone()).await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = topic.split('.').next().unwrap();
    let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
    let raw = stream.get_last_raw_message_by_subject(&topic).await.unwrap();
    let header = |name: &str| raw.headers.get(name).map(|value| value.as_str().to_owned());
    assert_eq!(header("ce-id"), Some(message.id));
    assert_eq!(header("ce-specversion").as_deref(), Some("1.0"));
    assert_eq!(header("ce-type").as_deref(), Some("note.v1"));
    assert_eq!(header("ce-partitionkey").as_deref(), Some("1"));
    assert_eq!(raw.payload, "1");
    broker.close().await;
}
