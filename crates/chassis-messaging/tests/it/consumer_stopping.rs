//! How a consumer stops: nothing is lost and nothing happens twice.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Component, Ready, Result, Shutdown};
use chassis_data::{Tx, params};
use chassis_messaging::{Consumer, ConsumerConfig, Inbox};
use chassis_test::eventually;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::world::{Greeting, SOON, World, config, note};

#[derive(Clone)]
struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn shut() -> Gate {
        Gate { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    async fn until_arrived(&self, count: usize) {
        eventually("handlers run", SOON, async || {
            (self.arrived.available_permits() >= count).then_some(())
        })
        .await;
    }
}

async fn wait_at(gate: Gate, tx: &mut Tx, greeting: Greeting) -> Result<()> {
    gate.arrived.add_permits(1);
    let _pass = gate.open.acquire().await.map_err(chassis_core::Error::internal)?;
    note((), tx, greeting).await
}

/// One slot: SQLite has one writer, and the gate is inside the transaction.
fn gated(world: &World, gate: &Gate) -> Consumer<Gate> {
    Consumer::new(&world.broker, &world.db, "greeter", gate.clone())
        .with_config(ConsumerConfig { concurrency: 1, ..config() })
        .on::<Greeting>(wait_at)
}

#[tokio::test]
async fn a_drain_lets_handlers_finish_and_takes_no_more() {
    let world = World::new().await;
    for number in 0..5 {
        world.publish(&Greeting::new("Ada", number)).await;
    }
    let gate = Gate::shut();
    let running = world.start(gated(&world, &gate)).await;
    gate.until_arrived(1).await;
    let stopping = tokio::spawn(running.stop(SOON));
    tokio::task::yield_now().await;
    gate.open.add_permits(1000);
    stopping.await.unwrap().unwrap();
    let done = world.effects().await.len();
    assert!((1..5).contains(&done), "{done} after the drain");
    // Whoever comes next goes on where it stopped.
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    let effects = world.until_effects(5).await;
    assert_eq!(effects, (0..5).map(|i| ("Ada".to_owned(), i)).collect::<Vec<_>>());
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn what_is_not_done_by_the_deadline_is_given_back_at_once() {
    let world = World::new().await;
    world.publish(&Greeting::new("Ada", 1)).await;
    let gate = Gate::shut();
    let running = world.start(gated(&world, &gate)).await;
    gate.until_arrived(1).await;
    let since = Instant::now();
    running.stop(Duration::from_millis(100)).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "stopping took {:?}", since.elapsed());
    assert_eq!(world.effects().await, []);
    // The ack wait of 30 s does not stand in the way of the next one.
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    assert_eq!(world.until_effects(1).await, [("Ada".to_owned(), 1)]);
    assert!(since.elapsed() < Duration::from_secs(20));
    running.stop(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_again_and_again_loses_nothing_and_repeats_nothing() {
    const COUNT: i64 = 200;
    let world = World::new().await;
    for number in 0..COUNT {
        world.publish(&Greeting::new(&(number % 7).to_string(), number)).await;
    }
    let mut done = 0;
    while done < COUNT as usize {
        let running = world.start(world.consumer().on::<Greeting>(note)).await;
        world.until_effects((done + 1).min(COUNT as usize)).await;
        running.stop(Duration::from_millis(5)).await.unwrap();
        done = world.effects().await.len();
    }
    let mut numbers: Vec<i64> =
        world.effects().await.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_inbox_that_forgets_before_the_broker_does_is_refused_at_the_start() {
    let world = World::new().await;
    let short = Inbox::new(&world.db).with_retention(world.broker.redelivers_within());
    let consumer = world.consumer().with_inbox(short).on::<Greeting>(note);
    let (_trigger, shutdown) = Shutdown::new();
    let (ready, _is_ready) = Ready::channel();
    let refused = Box::new(consumer).run(world.env.clone(), ready, shutdown).await;
    assert_eq!(refused.unwrap_err().reason(), "INBOX_RETENTION_TOO_SHORT");
}

#[tokio::test]
async fn a_consumer_removes_the_old_notes_of_its_inbox() {
    let world = World::new().await;
    let sql = "insert into chassis_inbox (consumer, message_id, received_at) values ($1, $2, $3)";
    world.db.execute(sql, params!["greeter", "old", 1_i64]).await.unwrap();
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    eventually("the old note is gone", SOON, async || {
        let rows = world.db.fetch_all("select 1 from chassis_inbox", params![]).await.unwrap();
        rows.is_empty().then_some(())
    })
    .await;
    running.stop(SOON).await.unwrap();
}
