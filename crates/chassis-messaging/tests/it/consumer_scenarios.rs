//! What a consumer promises, as scenarios that run on any broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{Context, Env, Error, Result, SpanKind, Status};
use chassis_data::{Tx, params};
use chassis_messaging::consumer::{BatchConfig, PauseConfig};
use chassis_messaging::event::Upcasts;
use chassis_messaging::{
    Broker, Consumer, ConsumerConfig, Deliveries, Event, Message, Subscription,
};
use chassis_test::eventually;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::world::{Greeting, SOON, World, config, note};

/// A second member of the group, which gets what the consumer does not hold.
async fn another_of_the_group(
    world: &World,
    most: usize,
    ack_wait: Duration,
) -> Box<dyn Deliveries> {
    let wide = Subscription {
        max_in_flight: most,
        ack_wait,
        ..Subscription::new("greeter", Greeting::TOPIC)
    };
    world.broker.subscribe(wide).await.unwrap()
}

/// Nothing comes for this long.
async fn quiet(deliveries: &mut Box<dyn Deliveries>, time: Duration) {
    let more = tokio::time::timeout(time, deliveries.next()).await;
    assert!(more.is_err(), "{more:?}");
}

async fn dead_letter(world: &World) -> Message {
    let dead = Subscription::new("test", "dlq.greeter.greetings.said");
    let mut deliveries = world.broker.subscribe(dead).await.unwrap();
    let next = tokio::time::timeout(SOON, deliveries.next()).await.expect("a dead letter");
    let delivery = next.unwrap().unwrap();
    let message = delivery.message.clone();
    delivery.ack().await.unwrap();
    message
}

#[derive(Serialize, Deserialize)]
struct GreetingV2 {
    names: Vec<String>,
    number: i64,
}

impl Event for GreetingV2 {
    const TOPIC: &'static str = Greeting::TOPIC;
    const TYPE: &'static str = "greeting-said.v2";

    fn key(&self) -> Option<String> {
        self.names.first().cloned()
    }

    fn upcasts() -> Upcasts<Self> {
        Upcasts::none()
            .from(|old: Greeting| GreetingV2 { names: vec![old.name], number: old.number })
    }
}

pub(crate) async fn old_versions_are_turned_into_the_new_one(broker: Broker) {
    async fn note_all(_: (), tx: &mut Tx, event: GreetingV2) -> Result<()> {
        for name in event.names {
            note((), tx, Greeting::new(&name, event.number)).await?;
        }
        Ok(())
    }
    let world = World::with_broker(broker).await;
    world.publish(&Greeting::new("Ada", 1)).await;
    let new = GreetingV2 { names: vec!["Bob".into(), "Cy".into()], number: 2 };
    world.broker.publish(Message::event("test", &new).unwrap()).await.unwrap();
    world.broker.publish(Message::new(Greeting::TOPIC, "greeting-said.v3", "{}")).await.unwrap();
    let running = world.start(world.consumer().on::<GreetingV2>(note_all)).await;
    let mut effects = world.until_effects(3).await;
    effects.sort();
    let expected = [("Ada", 1), ("Bob", 2), ("Cy", 2)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(effects, expected);
    assert_eq!(dead_letter(&world).await.header("dlq-reason"), Some("UNKNOWN_EVENT_VERSION"));
    assert_eq!(world.count("consumer_upcast", &[]), 1);
    running.stop(SOON).await.unwrap();
}

/// The sizes of the batches that came, and names that poison one.
#[derive(Clone, Default)]
struct Batches {
    sizes: Arc<Mutex<Vec<usize>>>,
}

async fn note_batch(seen: Batches, tx: &mut Tx, greetings: Vec<Greeting>) -> Result<()> {
    let poisoned = greetings.iter().any(|greeting| greeting.name == "poison");
    let size = greetings.len();
    for greeting in greetings {
        note((), tx, greeting).await?;
    }
    if poisoned {
        return Err(Error::internal("poison"));
    }
    seen.sizes.lock().push(size);
    Ok(())
}

fn batch_config() -> ConsumerConfig {
    let batch = BatchConfig { size: 20, within: Duration::from_millis(200), lanes: 2 };
    ConsumerConfig { batch, ..config() }
}

fn numbers_of(effects: &[(String, i64)], key: &str) -> Vec<i64> {
    effects.iter().filter(|(name, _)| name == key).map(|(_, number)| *number).collect()
}

pub(crate) async fn batches_keep_the_order_of_each_key(broker: Broker) {
    const EACH: i64 = 40;
    const KEYS: [&str; 3] = ["Ada", "Bob", "Cy"];
    let world = World::with_broker(broker).await;
    for number in 0..EACH {
        for key in KEYS {
            let message = world.publish(&Greeting::new(key, number)).await;
            // One that was handled before, by a consumer that died before its answer.
            if number == 7 {
                let sql = "insert into chassis_inbox (consumer, message_id, received_at) \
                     values ($1, $2, $3)";
                let name = format!("greeter:{}", Greeting::TOPIC);
                let values = params![name, message.id, chassis_core::unix_ms()];
                world.db.execute(sql, values).await.unwrap();
            }
        }
    }
    let seen = Batches::default();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", seen.clone())
        .with_config(batch_config())
        .on_batch::<Greeting>(note_batch);
    let running = world.start(consumer).await;
    let effects = world.until_effects(KEYS.len() * (EACH as usize - 1)).await;
    let expected: Vec<i64> = (0..EACH).filter(|number| *number != 7).collect();
    for key in KEYS {
        assert_eq!(numbers_of(&effects, key), expected, "{key}");
    }
    eventually("all are answered", SOON, async || {
        (world.count("consumer_repeated", &[]) == 3).then_some(())
    })
    .await;
    running.stop(SOON).await.unwrap();
    let sizes = seen.sizes.lock().clone();
    assert!(sizes.iter().all(|size| *size <= 20), "{sizes:?}");
    assert!(sizes.len() <= 30, "{} commits for 117 events: {sizes:?}", sizes.len());
}

pub(crate) async fn poison_in_a_batch_dies_alone(broker: Broker) {
    const EACH: i64 = 12;
    let world = World::with_broker(broker).await;
    for number in 0..EACH {
        for key in ["Ada", "Bob", "Cy"] {
            world.publish(&Greeting::new(key, number)).await;
        }
        if number == 5 {
            world.publish(&Greeting::new("poison", 0)).await;
            // Of its key, and behind it.
            let mut behind = Message::event("test", &Greeting::new("behind", 1)).unwrap();
            behind.key = Some("poison".to_owned());
            world.broker.publish(behind).await.unwrap();
            let broken = Message::new(Greeting::TOPIC, Greeting::TYPE, "not json");
            world.broker.publish(broken).await.unwrap();
        }
    }
    // One attempt for each but for the poison: a second one would be the last.
    let strict = ConsumerConfig { max_attempts: 2, immediate_retries: 0, ..batch_config() };
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", Batches::default())
        .with_config(strict)
        .on_batch::<Greeting>(note_batch);
    let running = world.start(consumer).await;
    let effects = world.until_effects(3 * EACH as usize + 1).await;
    for key in ["Ada", "Bob", "Cy"] {
        assert_eq!(numbers_of(&effects, key), (0..EACH).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(numbers_of(&effects, "behind"), [1]);
    assert_eq!(numbers_of(&effects, "poison"), [] as [i64; 0]);
    let dead = || world.count("consumer_dead_lettered", &[]);
    eventually("two are dead", SOON, async || (dead() == 2).then_some(())).await;
    // The poison twice, what cannot be read once, and nobody else.
    assert_eq!(world.count("consumer_failed", &[]), 3);
    assert!(world.count("consumer_batches_split", &[]) > 0);
    running.stop(SOON).await.unwrap();
}

#[derive(Clone)]
struct Gate {
    arrived: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn shut() -> Gate {
        let zero = || Arc::new(AtomicUsize::new(0));
        Gate { arrived: zero(), most: zero(), open: Arc::new(Semaphore::new(0)) }
    }

    async fn pass(&self, count: usize) -> Result<()> {
        let inside = self.arrived.fetch_add(count, Ordering::SeqCst) + count;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let _pass = self.open.acquire().await.map_err(Error::internal)?;
        Ok(())
    }
}

/// Says nothing to the database: SQLite has one writer, and three should be inside.
async fn wait_outside(gate: Gate, _tx: &mut Tx, _: Greeting) -> Result<()> {
    gate.pass(1).await
}

async fn wait_outside_together(gate: Gate, _tx: &mut Tx, all: Vec<Greeting>) -> Result<()> {
    gate.pass(all.len()).await
}

/// One lane or one hand is inside the transaction; what is not in hand, others get.
async fn others_get_all_but(world: &World, hands: usize, consumer: Consumer<Gate>, gate: &Gate) {
    const COUNT: usize = 30;
    let running = world.start(consumer).await;
    for number in 0..COUNT {
        world.publish(&Greeting::new(&number.to_string(), number as i64)).await;
    }
    eventually("a handler runs", SOON, async || {
        (gate.arrived.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    let mut other = another_of_the_group(world, 1000, config().ack_wait).await;
    for _ in 0..COUNT - hands {
        let delivery = tokio::time::timeout(SOON, other.next()).await.expect("what nobody holds");
        delivery.unwrap().unwrap().ack().await.unwrap();
    }
    quiet(&mut other, Duration::from_millis(300)).await;
    let labels = [("group", "greeter"), ("topic", Greeting::TOPIC)];
    let in_flight = world.env.metrics().gauge("consumer_in_flight", "", &labels);
    assert!(in_flight.get() <= hands as i64, "{} in hand", in_flight.get());
    gate.open.add_permits(1000);
    eventually("the rest is handled", SOON, async || {
        (world.count("consumer_handled", &[]) == hands as u64).then_some(())
    })
    .await;
    assert!(gate.most.load(Ordering::SeqCst) <= hands);
    running.stop(SOON).await.unwrap();
}

pub(crate) async fn never_more_in_hand_than_hands(broker: Broker) {
    let world = World::with_broker(broker).await;
    let gate = Gate::shut();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(ConsumerConfig { concurrency: 3, ..config() })
        .on::<Greeting>(wait_outside);
    others_get_all_but(&world, 3, consumer, &gate).await;
}

pub(crate) async fn never_more_in_hand_than_a_batch(broker: Broker) {
    let world = World::with_broker(broker).await;
    let gate = Gate::shut();
    let batch = BatchConfig { size: 5, within: Duration::from_millis(20), lanes: 1 };
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(ConsumerConfig { batch, ..config() })
        .on_batch::<Greeting>(wait_outside_together);
    others_get_all_but(&world, 5, consumer, &gate).await;
}

/// All hands are taken: a full lane is at work, and what the other one holds cannot become
/// more before that is done.
pub(crate) async fn a_batch_does_not_wait_for_another_lane(broker: Broker) {
    // Five of these have the same lane. The last one too: the other lane must be told.
    const KEYS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
    let world = World::with_broker(broker).await;
    let gate = Gate::shut();
    let batch = BatchConfig { size: 4, within: Duration::from_secs(60), lanes: 2 };
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(ConsumerConfig { batch, ack_wait: Duration::from_secs(180), ..config() })
        .on_batch::<Greeting>(wait_outside_together);
    let running = world.start(consumer).await;
    for key in KEYS {
        world.publish(&Greeting::new(key, 1)).await;
    }
    let labels = [("group", "greeter"), ("topic", Greeting::TOPIC)];
    let in_flight = world.env.metrics().gauge("consumer_in_flight", "", &labels);
    eventually("all are in hand", SOON, async || (in_flight.get() == 8).then_some(())).await;
    gate.open.add_permits(1000);
    // The eighth begins a batch of its own, which may become more.
    eventually("both lanes are done", SOON, async || {
        (world.count("consumer_handled", &[]) == 7).then_some(())
    })
    .await;
    running.stop(SOON).await.unwrap();
    assert_eq!(world.count("consumer_handled", &[]), 7);
}

/// Several times its ack wait, with the broker free to give the message to another.
pub(crate) async fn a_slow_handler_keeps_its_message(broker: Broker) {
    const ACK_WAIT: Duration = Duration::from_millis(400);
    let world = World::with_broker(broker).await;
    let gate = Gate::shut();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(ConsumerConfig { ack_wait: ACK_WAIT, ..config() })
        .on::<Greeting>(wait_outside);
    let running = world.start(consumer).await;
    let patient =
        Subscription { ack_wait: ACK_WAIT, ..Subscription::new("greeter", Greeting::TOPIC) };
    world.publish(&Greeting::new("Ada", 1)).await;
    eventually("the handler runs", SOON, async || {
        (gate.arrived.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let mut other = world.broker.subscribe(patient).await.unwrap();
    quiet(&mut other, ACK_WAIT * 5).await;
    gate.open.add_permits(1000);
    eventually("it is handled", SOON, async || {
        (world.count("consumer_handled", &[]) == 1).then_some(())
    })
    .await;
    quiet(&mut other, ACK_WAIT * 2).await;
    assert_eq!(gate.arrived.load(Ordering::SeqCst), 1);
    running.stop(SOON).await.unwrap();
}

/// Fails until somebody mends it.
#[derive(Clone, Default)]
struct Broken {
    mended: Arc<AtomicBool>,
    failures: Arc<AtomicUsize>,
}

async fn fail(state: Broken, tx: &mut Tx, greeting: Greeting) -> Result<()> {
    if !state.mended.load(Ordering::SeqCst) {
        state.failures.fetch_add(1, Ordering::SeqCst);
        return Err(Error::unavailable("PARTNER_DOWN", "the partner is down"));
    }
    note((), tx, greeting).await
}

pub(crate) async fn a_topic_that_fails_is_left_alone_and_goes_on(broker: Broker) {
    const COUNT: usize = 60;
    // What a server sends to one who has just left comes again after this.
    const ACK_WAIT: Duration = Duration::from_secs(2);
    let world = World::with_broker(broker).await;
    world.env.health().set_started();
    let pause = PauseConfig {
        min_deliveries: 10,
        first: Duration::from_millis(400),
        longest: Duration::from_millis(800),
        ..PauseConfig::default()
    };
    let config = ConsumerConfig {
        pause,
        ack_wait: ACK_WAIT,
        concurrency: 4,
        immediate_retries: 0,
        max_attempts: 1000,
        retry_delay: Duration::from_secs(60),
        max_retry_delay: Duration::from_secs(60),
        ..config()
    };
    let state = Broken::default();
    for number in 0..COUNT {
        world.publish(&Greeting::new(&number.to_string(), number as i64)).await;
    }
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", state.clone())
        .with_config(config)
        .on::<Greeting>(fail);
    let running = world.start(consumer).await;
    let labels = [("group", "greeter"), ("topic", Greeting::TOPIC)];
    let paused = world.env.metrics().gauge("consumer_paused", "", &labels);
    eventually("it pauses", SOON, async || (paused.get() == 1).then_some(())).await;
    world.env.health().check_now().await;
    assert_eq!(world.env.health().status(), Status::Degraded);
    assert_eq!(world.count("consumer_pauses", &[]), 1);
    let tried = state.failures.load(Ordering::SeqCst);
    assert!((10..=16).contains(&tried), "{tried} tries before the pause");

    // What it does not hold, another one of the group can have, as a first attempt.
    let mut other = another_of_the_group(&world, 1000, ACK_WAIT).await;
    let others = tokio::time::timeout(SOON, other.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(others.attempt, 1);
    others.release().await.unwrap();
    drop(other);

    state.mended.store(true, Ordering::SeqCst);
    // All but those that failed, each once, and wait for at least half a minute now.
    eventually("the others take effect", SOON, async || {
        let failed = state.failures.load(Ordering::SeqCst);
        (world.effects().await.len() + failed == COUNT).then_some(())
    })
    .await;
    let failed = state.failures.load(Ordering::SeqCst);
    assert!(failed <= 25, "{failed} failed, {tried} of them before the pause");
    eventually("it goes on", SOON, async || (paused.get() == 0).then_some(())).await;
    world.env.health().check_now().await;
    assert_eq!(world.env.health().status(), Status::Up);
    running.stop(SOON).await.unwrap();
}

pub(crate) async fn the_lag_is_shown(broker: Broker) {
    let world = World::with_broker(broker).await;
    let gate = Gate::shut();
    let config =
        ConsumerConfig { concurrency: 1, lag_every: Duration::from_millis(100), ..config() };
    for number in 0..5 {
        world.publish(&Greeting::new(&number.to_string(), number)).await;
    }
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(config)
        .on::<Greeting>(wait_outside);
    let running = world.start(consumer).await;
    let gauge = |state| {
        let labels = [("group", "greeter"), ("topic", Greeting::TOPIC), ("state", state)];
        world.env.metrics().gauge("consumer_lag", "", &labels)
    };
    let (waiting, unanswered) = (gauge("waiting"), gauge("unanswered"));
    let shown = async |expected: (i64, i64)| {
        eventually("the lag is shown", SOON, async || {
            ((waiting.get(), unanswered.get()) == expected).then_some(())
        })
        .await;
    };
    shown((4, 1)).await;
    gate.open.add_permits(1000);
    shown((0, 0)).await;
    running.stop(SOON).await.unwrap();
}

/// A batch is a trace of its own, linked to the publishes of its messages and to what
/// appended them.
pub(crate) async fn a_batch_is_linked_to_what_appended_it(broker: Broker) {
    let world = World::with_broker(broker).await;
    let sender = Context::background(&Env::test("sender"));
    for number in 0..3 {
        let message = Message::event("test", &Greeting::new("Ada", number)).unwrap();
        let message = message
            .with_context(&sender)
            .with_header("x-appended-by", format!("000000000000000{}", number + 1));
        world.broker.publish(message).await.unwrap();
    }
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", Batches::default())
        .with_config(batch_config())
        .on_batch::<Greeting>(note_batch);
    let running = world.start(consumer).await;
    world.until_effects(3).await;
    running.stop(SOON).await.unwrap();
    let spans = world.env.captured_spans();
    let batches = spans
        .iter()
        .filter(|span| matches!(span.kind, SpanKind::Consumer) && span.trace.parent.is_none());
    let links: Vec<_> = batches.flat_map(|span| &span.links).collect();
    assert!(links.iter().all(|link| link.trace_id == sender.trace().trace_id));
    let linked = |id: String| links.iter().any(|link| link.span_id.to_string() == id);
    assert!(linked(sender.trace().span_id.to_string()), "{spans:?}");
    assert!((1..=3).all(|number| linked(format!("000000000000000{number}"))), "{spans:?}");
}
