//! Faults of messages, on any broker: many times, in disorder, late, poisoned, too large.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::Tx;
use chassis_messaging::broker::Topics;
use chassis_messaging::inbox::Inbox;
use chassis_messaging::{Broker, Event, Message, Subscription};
use chassis_test::eventually;

use super::outbox_scenarios::{self, Running, append, quick, states};
use super::world::{Greeting, SOON, World, note};

/// Each message three times, shuffled as far as the first ones of a key are in order:
/// effect once, and in order within the key.
pub(crate) async fn three_times_shuffled(broker: Broker) {
    let world = World::with_broker(broker).await;
    let mut dice = fastrand::Rng::with_seed(11);
    let mut places: Vec<(usize, usize)> =
        (0..5).flat_map(|key| (0..20).flat_map(move |slot| [(key, slot); 3])).collect();
    dice.shuffle(&mut places);
    let mut numbers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut sent: BTreeMap<(usize, usize), (Message, u32)> = BTreeMap::new();
    for place in places {
        let seen = numbers.entry(place.0).or_default();
        if !seen.contains(&place.1) {
            let greeting = Greeting::new(&format!("key-{}", place.0), seen.len() as i64);
            seen.push(place.1);
            sent.insert(place, (Message::event("test", &greeting).unwrap(), 0));
        }
        let (message, times) = sent.get_mut(&place).unwrap();
        // The broker is to keep all three: each looks as if it had been redriven.
        let copy = message.clone().with_header("dlq-redrives", times.to_string());
        *times += 1;
        world.broker.publish(copy).await.unwrap();
    }
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    eventually("all are handled", SOON, async || {
        let hits = world.count("consumer_repeated", &[]);
        (hits >= 200).then_some(())
    })
    .await;
    let mut effects: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (name, number) in world.effects().await {
        effects.entry(name).or_default().push(number);
    }
    assert_eq!(effects.len(), 5);
    assert!(effects.values().all(|numbers| *numbers == (0..20).collect::<Vec<_>>()));
    running.stop(SOON).await.unwrap();
    world.broker.close().await;
}

/// The window in which the broker knows repetitions is over: it stores the message
/// again, and the inbox knows it. `broker` has a window of a tenth of a second.
pub(crate) async fn again_after_the_window(broker: Broker) {
    let world = World::with_broker(broker).await;
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    let message = world.publish(&Greeting::new("Ada", 1)).await;
    world.until_effects(1).await;
    let stored = eventually("it is stored again", SOON, async || {
        world.broker.publish(message.clone()).await.unwrap();
        let topic = Topics::One(Greeting::TOPIC.to_owned());
        let page = world.broker.browse().unwrap().page(topic, 0, 100).await.unwrap();
        (page.messages.len() > 1).then_some(page.messages)
    })
    .await;
    assert!(stored.iter().all(|stored| stored.message.id == message.id));
    world.publish(&Greeting::new("Ada", 2)).await;
    let effects = world.until_effects(2).await;
    assert_eq!(effects, [("Ada".to_owned(), 1), ("Ada".to_owned(), 2)]);
    running.stop(SOON).await.unwrap();
    world.broker.close().await;
}

/// A consumer that was paused past its ack wait, and goes on when another one has
/// handled its message: one effect.
pub(crate) async fn paused_past_its_ack_wait(broker: Broker) {
    let world = World::with_broker(broker).await;
    let inbox = Inbox::new(&world.db);
    let message = world.publish(&Greeting::new("Ada", 1)).await;
    let subscription = Subscription {
        ack_wait: Duration::from_millis(300),
        ..Subscription::new("paused", Greeting::TOPIC)
    };
    let handle = async || {
        let mut tx = world.db.begin().await.unwrap();
        let first = inbox.first_time(&mut tx, "paused", &message.id).await.unwrap();
        if first {
            note((), &mut tx, Greeting::new("Ada", 1)).await.unwrap();
        }
        tx.commit().await.unwrap();
        first
    };
    let mut one = world.broker.subscribe(subscription.clone()).await.unwrap();
    let paused = tokio::time::timeout(SOON, one.next()).await.unwrap().unwrap().unwrap();
    // It gets nothing more while it holds on, so the other one gets the second delivery.
    let mut other = world.broker.subscribe(subscription).await.unwrap();
    let again = tokio::select! {
        again = other.next() => again.unwrap().unwrap(),
        again = one.next() => again.unwrap().unwrap(),
        () = tokio::time::sleep(SOON) => panic!("not delivered again"),
    };
    assert_eq!((again.message.id.as_str(), again.attempt), (message.id.as_str(), 2));
    assert!(handle().await);
    again.ack().await.unwrap();
    assert!(!handle().await, "the paused one finds the note");
    // Its answer is late and changes nothing.
    let _ = paused.ack().await;
    assert_eq!(world.effects().await.len(), 1);
    world.broker.close().await;
}

async fn picky(state: (), tx: &mut Tx, greeting: Greeting) -> Result<()> {
    note(state, tx, greeting.clone()).await?;
    match greeting.name.as_str() {
        "panic" => panic!("the handler was asked to panic"),
        "refuse" => Err(Error::invalid_argument("BAD_NAME", "this name cannot be greeted")),
        _ => Ok(()),
    }
}

/// Poison of each kind becomes a dead letter; the rest takes effect.
pub(crate) async fn poison_of_each_kind(broker: Broker) {
    let world = World::with_broker(broker).await;
    let mut poison = BTreeSet::new();
    for name in ["panic", "refuse"] {
        poison.insert(world.publish(&Greeting::new(name, 0)).await.id);
    }
    for (kind, payload) in
        [("greeting-said.v1", "not json"), ("greeting-said.v9", "{}"), ("other.v1", "{}")]
    {
        let message = Message::new(Greeting::TOPIC, kind, payload);
        poison.insert(message.id.clone());
        world.broker.publish(message).await.unwrap();
    }
    let large = Message::new(Greeting::TOPIC, "greeting-said.v1", vec![b'x'; 2 * 1024 * 1024]);
    let refused = world.broker.publish(large).await.unwrap_err();
    assert_eq!(refused.reason(), "MESSAGE_TOO_LARGE");
    for number in 0..10 {
        world.publish(&Greeting::new("Ada", number)).await;
    }
    let running = world.start(world.consumer().on::<Greeting>(picky)).await;
    let effects = world.until_effects(10).await;
    assert_eq!(effects, (0..10).map(|n| ("Ada".to_owned(), n)).collect::<Vec<_>>());
    let dead = eventually("all poison is put away", SOON, async || {
        let topic = Topics::One("dlq.greeter.greetings.said".to_owned());
        let page = world.broker.browse().unwrap().page(topic, 0, 100).await.unwrap();
        (page.messages.len() >= poison.len()).then_some(page.messages)
    })
    .await;
    let dead: BTreeSet<String> = dead.into_iter().map(|stored| stored.message.id).collect();
    assert_eq!(dead, poison);
    running.stop(SOON).await.unwrap();
    world.broker.close().await;
}

/// A row that the broker will never take is parked with its reason; its key and the
/// others go on.
pub(crate) async fn a_row_that_is_too_large_is_parked(broker: Broker) {
    let (_folder, db) = super::loss_scenarios::sqlite().await;
    let config = chassis_messaging::outbox::OutboxConfig { max_attempts: 3, ..quick() };
    let outbox = outbox_scenarios::outbox(&db, config).await;
    let mut tx = db.begin().await.unwrap();
    let large = Message::new("items.added", "item-added.v1", vec![b'x'; 2 * 1024 * 1024]);
    outbox.append_message(&mut tx, large.with_key("a")).await.unwrap();
    tx.commit().await.unwrap();
    for key in ["a", "b"] {
        append(&db, &outbox, key, 1).await;
    }
    let relay = Running::start(&outbox, &broker).await;
    eventually("parked and published", SOON, async || {
        (states(&db).await == [0, 2, 1]).then_some(())
    })
    .await;
    let parked = outbox.parked(10).await.unwrap();
    assert!(parked[0].reason.contains("MESSAGE_TOO_LARGE"), "{}", parked[0].reason);
    relay.stop(SOON).await;
    broker.close().await;
}
