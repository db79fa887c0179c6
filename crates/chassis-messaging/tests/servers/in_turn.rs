//! Order per key at the effect, with several processes of a group on JetStream.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use chassis_core::Result;
use chassis_data::Tx;
use chassis_messaging::consumer::InTurnConfig;
use chassis_messaging::outbox::Outbox;
use chassis_messaging::{
    Broker, BrokerConfig, Consumer, ConsumerConfig, Event, Message, Subscription,
};
use chassis_test::servers::Nats;

use super::world::{Greeting, Ordered, SOON, World, config, note};

async fn note_ordered(_: (), tx: &mut Tx, event: Ordered) -> Result<()> {
    note((), tx, event.0).await
}

async fn world(nats: &Nats) -> (World, Broker) {
    let connect = async || Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    (World::with_broker(connect().await).await, connect().await)
}

/// As an outbox publishes them, without those that `leave_out` names.
async fn publish(world: &World, keys: i64, each: i64, leave_out: &[i64]) {
    let outbox = Outbox::new(&world.db, "test");
    world.db.migrate(&outbox.migrations()).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    for number in 1..=each {
        for key in 0..keys {
            let event = Ordered(Greeting::new(&key.to_string(), number));
            outbox.append(&mut tx, &event).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    let mut messages: Vec<Message> = outbox.pending(10_000).await.unwrap();
    // Ids are in the order of the appends.
    messages.sort_by(|a, b| a.id.cmp(&b.id));
    for message in messages {
        let event: Ordered = message.to_event().unwrap();
        if !leave_out.contains(&event.0.number) {
            world.broker.publish(message).await.unwrap();
        }
    }
}

fn consumer(world: &World, broker: &Broker, settle: Duration) -> Consumer<()> {
    let in_turn = InTurnConfig { settle, ..InTurnConfig::default() };
    let config = ConsumerConfig { in_turn, ack_wait: Duration::from_secs(1), ..config() };
    Consumer::new(broker, &world.db, "greeter", ())
        .with_config(config)
        .in_turn()
        .on::<Ordered>(note_ordered)
}

fn in_order(effects: &[(String, i64)], keys: i64, expected: &[i64]) {
    for key in 0..keys {
        let key = key.to_string();
        let of_key = effects.iter().filter(|(name, _)| *name == key);
        let numbers: Vec<i64> = of_key.map(|(_, number)| *number).collect();
        assert_eq!(numbers, expected, "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_a_group_keep_the_order_of_each_key() {
    const KEYS: i64 = 4;
    const EACH: i64 = 30;
    let nats = Nats::start().await;
    let (world, other) = world(&nats).await;
    let settle = InTurnConfig::default().settle;
    let both = [
        world.start(consumer(&world, &world.broker, settle)).await,
        world.start(consumer(&world, &other, settle)).await,
    ];
    publish(&world, KEYS, EACH, &[]).await;
    let effects = world.until_effects((KEYS * EACH) as usize).await;
    in_order(&effects, KEYS, &(1..=EACH).collect::<Vec<_>>());
    for running in both {
        running.stop(SOON).await.unwrap();
    }
}

/// Another process takes the first message and says nothing more, as if it were killed:
/// that message comes again when later ones of its key have been here for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_died_with_a_process_is_waited_for() {
    let nats = Nats::start().await;
    let (world, other) = world(&nats).await;
    let ack_wait = Duration::from_secs(1);
    let taker = Subscription {
        max_in_flight: 1,
        ack_wait,
        ..Subscription::new("greeter", Greeting::TOPIC)
    };
    let mut taken = other.subscribe(taker).await.unwrap();
    publish(&world, 1, 5, &[]).await;
    let held = tokio::time::timeout(SOON, taken.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(held.message.to_event::<Ordered>().unwrap().0.number, 1);
    let settle = InTurnConfig::default().settle;
    let running = world.start(consumer(&world, &world.broker, settle)).await;
    let effects = world.until_effects(5).await;
    in_order(&effects, 1, &[1, 2, 3, 4, 5]);
    assert!(world.count("consumer_early", &[]) > 0);
    running.stop(SOON).await.unwrap();
    drop(held);
}

/// What was parked in the outbox is never published: the broker says that there is nothing
/// to wait for, long before the patience is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_when_the_broker_has_nothing_before_it() {
    let nats = Nats::start().await;
    let (world, _other) = world(&nats).await;
    let settle = Duration::from_millis(200);
    let running = world.start(consumer(&world, &world.broker, settle)).await;
    publish(&world, 2, 4, &[2]).await;
    let effects = world.until_effects(6).await;
    in_order(&effects, 2, &[1, 3, 4]);
    assert_eq!(world.count("consumer_gaps", &[("end", "gone_on")]), 2);
    running.stop(SOON).await.unwrap();
}
