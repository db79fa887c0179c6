//! Dead letters on the embedded broker, and on brokers that fail or cannot look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use chassis_messaging::broker::{Browse, Driver};
use chassis_messaging::dead_letters::{DeadLetters, Filter, Pace};
use chassis_messaging::{Broker, Deliveries, Message, Publisher, Subscriber, Subscription};

use crate::dead_letter_scenarios as scenarios;
use crate::scripted::Script;
use crate::world::{Greeting, SOON, World, note};

macro_rules! on_the_embedded_broker {
    ($($name:ident,)*) => { $(#[tokio::test]
        async fn $name() {
            scenarios::$name(Broker::temporary().await.unwrap()).await;
        })* }
}

on_the_embedded_broker! {
    edited_and_redriven_it_is_handled_once,
    one_that_dies_again_is_there_again,
    many_are_redriven_at_a_rate_or_discarded,
    letters_of_another_group_are_out_of_reach,
}

/// A broker that takes messages only while it is told to.
struct Moody {
    broker: Broker,
    takes: Arc<AtomicBool>,
}

impl Publisher for Moody {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if !self.takes.load(Ordering::SeqCst) {
                return Err(Error::unavailable("DOWN", "the broker takes nothing"));
            }
            self.broker.publish(message).await
        })
    }
}

impl Subscriber for Moody {
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>> {
        Box::pin(self.broker.subscribe(subscription))
    }
}

impl Driver for Moody {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.broker.check())
    }

    fn redelivers_within(&self) -> Duration {
        self.broker.redelivers_within()
    }

    fn browse(&self) -> Option<&dyn Browse> {
        self.broker.browse()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.broker.close())
    }
}

#[tokio::test]
async fn a_letter_stays_until_the_broker_has_the_message() {
    let takes = Arc::new(AtomicBool::new(true));
    let embedded = Broker::temporary().await.unwrap();
    let broker = Broker::new(Moody { broker: embedded, takes: takes.clone() });
    for number in 0..3 {
        let letter = Message::new("dlq.greeter.greetings.said", "t.v1", number.to_string());
        broker.publish(letter).await.unwrap();
    }
    let letters = DeadLetters::new(&broker, "greeter").unwrap();
    let before = letters.list(&Filter::default(), 0, 10).await.unwrap();
    let first = before.letters[0].position;
    takes.store(false, Ordering::SeqCst);
    assert_eq!(letters.redrive(first).await.unwrap_err().reason(), "DOWN");
    assert_eq!(letters.edit(first, "x".into()).await.unwrap_err().reason(), "DOWN");
    // No use in trying the others.
    let swept = letters.redrive_all(&Filter::default(), Pace::default()).await.unwrap();
    assert_eq!((swept.done, swept.failed, swept.more), (0, 1, true));
    assert!(swept.problem.unwrap().contains("takes nothing"));
    assert_eq!(letters.list(&Filter::default(), 0, 10).await.unwrap(), before);

    takes.store(true, Ordering::SeqCst);
    let fast = Pace { per_second: 1000, ..Pace::default() };
    let swept = letters.redrive_all(&Filter::default(), fast).await.unwrap();
    assert_eq!((swept.done, swept.failed, swept.more), (3, 0, false));
    let mut deliveries =
        broker.subscribe(Subscription::new("any", "greetings.said")).await.unwrap();
    for number in 0..3 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert_eq!(delivery.message.payload, number.to_string());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_sweep_stops_in_time() {
    let broker = Broker::temporary().await.unwrap();
    for number in 0..5 {
        let letter = Message::new("dlq.greeter.a", "t.v1", number.to_string());
        broker.publish(letter).await.unwrap();
    }
    let letters = DeadLetters::new(&broker, "greeter").unwrap();
    let within = Duration::from_millis(300);
    let slow = Pace { per_second: 5, within, ..Pace::default() };
    let swept = letters.discard_all(&Filter::default(), slow).await.unwrap();
    assert!(swept.done <= 2 && swept.more, "{swept:?}");
    let left = letters.list(&Filter::default(), 0, 10).await.unwrap().letters;
    assert_eq!(left.len() + swept.done, 5);
}

#[tokio::test]
async fn a_broker_that_cannot_look_says_so() {
    let script = Script::default();
    let letters = DeadLetters::new(&script.broker(), "greeter").unwrap();
    let error = letters.list(&Filter::default(), 0, 10).await.unwrap_err();
    assert_eq!(error.reason(), "BROKER_CANNOT_BROWSE");
    let world = World::with_broker(script.broker()).await;
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    assert_eq!(world.env.operations().list(), []);
    running.stop(SOON).await.unwrap();
}
