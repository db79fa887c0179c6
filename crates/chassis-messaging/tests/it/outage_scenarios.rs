//! A broker that is gone for long, or dies while its messages are being handled.
//!
//! How it goes and comes back is the caller's, so that the scenarios run on any broker.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{BoxFuture, Error, Result};
use chassis_data::{Backend, Db, Tx};
use chassis_messaging::broker::Tails;
use chassis_messaging::outbox::OutboxConfig;
use chassis_messaging::{
    Broker, Consumer, ConsumerConfig, Event, Message, Publisher, Subscription,
};
use chassis_test::eventually;
use tokio::sync::Semaphore;

use super::outbox_scenarios::{ItemAdded, Running, append, outbox, quick, until_states};
use super::world::{self, Greeting, World, note};

/// A server that comes back takes its time.
const SOON: Duration = Duration::from_secs(60);

/// A broker with a switch, which counts what is asked of it.
#[derive(Clone)]
pub(crate) struct Switched {
    broker: Broker,
    away: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Switched {
    fn new(broker: &Broker) -> Switched {
        Switched {
            broker: broker.clone(),
            away: Arc::default(),
            tries: Arc::default(),
            at_once: Arc::default(),
            most: Arc::default(),
        }
    }

    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }
}

/// Counts a publish under way, also one that is dropped.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Publisher for Switched {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.tries.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            let _under_way = UnderWay(self.at_once.clone());
            self.most.fetch_max(now, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
                return Err(Error::unavailable("AWAY", "nobody home"));
            }
            self.broker.publish(message).await
        })
    }

    fn tails(&self) -> Option<&dyn Tails> {
        self.broker.tails()
    }
}

/// The broker is gone for as many looks as a relay makes in minutes (with its defaults one
/// every two seconds), while business goes on: no commit waits for it, no row loses a try,
/// none is parked, no more than the window is in memory, and all of it is published in the
/// order of its keys once the broker is back.
pub(crate) async fn a_broker_gone_for_minutes_costs_nothing<B: Backend>(
    db: Db<B>,
    broker: Broker,
    looks: usize,
    gone: impl AsyncFnOnce(&Switched),
    back: impl AsyncFnOnce(&Switched),
) {
    const KEYS: u32 = 20;
    const ROUNDS: u32 = 30;
    const IN_FLIGHT: usize = 32;
    let config = OutboxConfig {
        // One refusal would park a row.
        max_attempts: 1,
        window: 64,
        max_in_flight: IN_FLIGHT,
        publish_timeout: Duration::from_millis(300),
        ..quick()
    };
    let outbox = outbox(&db, config).await;
    let publisher = Switched::new(&broker);
    let relay = Running::start(&outbox, &publisher).await;
    let business = async |round| {
        for key in 0..KEYS {
            let key = format!("key-{key}");
            let commit = append(&db, &outbox, &key, round);
            tokio::time::timeout(SOON, commit).await.expect("no commit waits for the broker");
        }
    };
    business(0).await;
    until_states(&db, "the first are published", [0, i64::from(KEYS), 0]).await;
    gone(&publisher).await;
    let before = publisher.tries();
    for round in 1..ROUNDS / 2 {
        business(round).await;
    }
    eventually("the relay has looked for it again and again", SOON, async || {
        (publisher.tries() >= before + looks).then_some(())
    })
    .await;
    for round in ROUNDS / 2..ROUNDS {
        business(round).await;
    }
    let waiting = i64::from(KEYS * (ROUNDS - 1));
    let sql = "SELECT COUNT(*), MAX(attempts), MAX(next_at), MAX(state)
        FROM chassis_outbox WHERE state <> 1";
    let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
    let numbers: Vec<i64> = (0..4).map(|column| row.int(column).unwrap()).collect();
    assert_eq!(numbers, [waiting, 0, 0, 0], "rows, tries, pauses, parked");
    let depth = relay.env.metrics().gauge("outbox_depth", "", &[]);
    eventually("the backlog is shown", SOON, async || (depth.get() == waiting).then_some(())).await;

    back(&publisher).await;
    until_states(&db, "the backlog is gone", [0, i64::from(KEYS * ROUNDS), 0]).await;
    eventually("and that is shown", SOON, async || (depth.get() == 0).then_some(())).await;
    assert!(outbox.parked(1).await.unwrap().is_empty());
    assert!(publisher.most.load(Ordering::SeqCst) <= IN_FLIGHT);
    relay.stop(SOON).await;
    in_order(&broker, KEYS, ROUNDS).await;
    broker.close().await;
}

/// A group finds each message, those of a key in their order.
async fn in_order(broker: &Broker, keys: u32, rounds: u32) {
    let subscription = Subscription::new("auditor", ItemAdded::TOPIC);
    let mut deliveries =
        eventually("the group", SOON, async || broker.subscribe(subscription.clone()).await.ok())
            .await;
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < (keys * rounds) as usize {
        let next = tokio::time::timeout(SOON, deliveries.next()).await;
        let delivery = next.unwrap_or_else(|_| panic!("only {}", seen.len())).unwrap().unwrap();
        if seen.insert(delivery.message.id.clone()) {
            let item: ItemAdded = delivery.message.to_event().unwrap();
            found.entry(item.key).or_default().push(item.number);
        }
        delivery.ack().await.unwrap();
    }
    assert_eq!(found.len(), keys as usize);
    for (key, numbers) in found {
        assert_eq!(numbers, (0..rounds).collect::<Vec<_>>(), "{key}");
    }
}

/// Handlers that wait until they are let go.
#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<Semaphore>,
    pub(crate) in_hand: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { open: Arc::new(Semaphore::new(0)), in_hand: Arc::default() }
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

pub(crate) async fn behind_the_gate(gate: Gate, tx: &mut Tx, greeting: Greeting) -> Result<()> {
    gate.in_hand.fetch_add(1, Ordering::SeqCst);
    gate.open.acquire().await.unwrap().forget();
    note((), tx, greeting).await
}

/// A consumer whose handler has one message and stands at the gate with it.
pub(crate) async fn one_in_hand(world: &World) -> (Gate, world::Running) {
    let gate = Gate::new();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(hands())
        .on::<Greeting>(behind_the_gate);
    let running = world.start(consumer).await;
    eventually("one is in hand", world::SOON, async || {
        (gate.in_hand.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    (gate, running)
}

pub(crate) fn hands() -> ConsumerConfig {
    // One: SQLite has one writer, and each handler holds its transaction.
    ConsumerConfig { concurrency: 1, ack_wait: Duration::from_secs(2), ..world::config() }
}

/// Each takes effect once, in the order of its key.
pub(crate) fn once_and_in_order(effects: &[(String, i64)], keys: usize, rounds: i64) {
    let mut found: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (name, number) in effects {
        found.entry(name).or_default().push(*number);
    }
    assert_eq!(found.len(), keys);
    for (key, numbers) in found {
        assert_eq!(numbers, (0..rounds).collect::<Vec<_>>(), "{key}");
    }
}

/// The broker dies while a message is in hand and others wait. What is in hand is committed,
/// though nobody takes its answer; what comes again changes nothing; and the consumer goes
/// on by itself.
pub(crate) async fn a_broker_that_dies_under_a_handler_is_survived(
    broker: Broker,
    dies: impl AsyncFnOnce(),
    comes_back: impl AsyncFnOnce(),
) {
    const KEYS: usize = 4;
    const ROUNDS: i64 = 5;
    let world = World::with_broker(broker).await;
    for number in 0..ROUNDS {
        for key in 0..KEYS {
            world.publish(&Greeting::new(&format!("key-{key}"), number)).await;
        }
    }
    let (gate, running) = one_in_hand(&world).await;
    dies().await;
    gate.open();
    world.until_effects(1).await;
    comes_back().await;
    let all = KEYS as i64 * ROUNDS;
    eventually("all have taken effect", SOON, async || {
        (world.effects().await.len() as i64 >= all).then_some(())
    })
    .await;
    let late = Message::event("test", &Greeting::new("key-0", ROUNDS)).unwrap();
    eventually("the broker takes messages", SOON, async || {
        world.broker.publish(late.clone()).await.ok()
    })
    .await;
    let effects = world.until_effects(KEYS * ROUNDS as usize + 1).await;
    assert_eq!(effects.last().unwrap(), &("key-0".to_owned(), ROUNDS), "the consumer lives");
    once_and_in_order(&effects[..effects.len() - 1], KEYS, ROUNDS);
    assert_eq!(world.count("consumer_dead_lettered", &[]), 0);
    running.stop(SOON).await.unwrap();
    world.broker.close().await;
}
