//! `commit_to_effect_p99_ms`: from the commit of a business transaction to that of the
//! handler's, at 1 000 events a second over 1 000 keys. The anchor is the same way by hand
//! under the same load, but without an outbox or an order: when the business transaction is
//! committed, one raw publish with its acknowledgement, then a transaction with the note and
//! the effect.

use std::collections::HashMap;
use std::sync::Arc;

use chassis_core::Component as _;
use chassis_core::{Env, Ready, Result, Shutdown};
use chassis_data::{Tx, params};
use chassis_messaging::{Consumer, ConsumerConfig, Inbox};
use chassis_test::figures::{Figure, percentile};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::latency::{WARM_UP, WRITERS, latencies, numbers, ticks, write};
use crate::world::{Database, Item, LIMIT, Outcome, Running, World, message};

/// Events of each writer.
const BY_HAND: usize = 300;

/// When the effect of an event was committed, by its number.
type Effects = Arc<Mutex<HashMap<usize, Instant>>>;

pub(crate) async fn run(world: &World) -> Outcome<Figure> {
    world.empty().await?;
    let mut by_hand = by_hand(world).await?;
    world.empty().await?;
    world.forget_messages().await;
    let effects = Effects::default();
    let relay = Running::start(&world.outbox, &world.broker).await?;
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let consumer = Consumer::new(&world.broker, &world.db, "bench-effect", effects.clone())
        .with_config(ConsumerConfig { concurrency: 16, ..ConsumerConfig::default() })
        .on::<Item>(take);
    let env = Env::new(chassis_core::service_info!("bench"));
    let consumer = tokio::spawn(Box::new(consumer).run(env, ready, shutdown));
    is_ready.await?;
    let commits = write(world).await?;
    let mut times =
        latencies(world, commits, |event| effects.lock().get(&event.number).copied()).await?;
    trigger.shutdown(LIMIT);
    consumer.await??;
    relay.stop().await?;
    Ok(Figure {
        bench: "commit_to_effect_p99_ms".into(),
        value: percentile(&mut times, 0.99),
        unit: "ms",
        anchor: "one raw publish, then the handler's transaction, by hand under the same load",
        anchor_value: percentile(&mut by_hand, 0.99),
    })
}

async fn take(effects: Effects, tx: &mut Tx<sqlx::Postgres>, item: Item) -> Result<()> {
    tx.execute("insert into item (name) values ($1)", params![item.pad]).await?;
    tx.on_commit(move || {
        effects.lock().entry(item.number).or_insert_with(Instant::now);
    });
    Ok(())
}

async fn by_hand(world: &World) -> Outcome<Vec<f64>> {
    let writers = (0..WRITERS).map(|writer| {
        let (db, broker, inbox) = (world.db.clone(), world.broker.clone(), Inbox::new(&world.db));
        tokio::spawn(async move {
            let mut tick = ticks();
            let mut times = Vec::with_capacity(BY_HAND);
            for number in numbers(writer).take(BY_HAND) {
                tick.tick().await;
                let mut tx = db.begin().await?;
                tx.execute("insert into item (name) values ($1)", params!["name"]).await?;
                tx.commit().await?;
                let (start, message) = (Instant::now(), message(number));
                let id = message.id.clone();
                broker.publish(message).await?;
                note(&db, &inbox, &id).await?;
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            Result::<Vec<_>>::Ok(times)
        })
    });
    let mut times = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        times.extend(writer.await??.into_iter().skip(WARM_UP));
    }
    Ok(times)
}

async fn note(db: &Database, inbox: &Inbox<sqlx::Postgres>, id: &str) -> Result<()> {
    let mut tx = db.begin().await?;
    inbox.first_time(&mut tx, "by-hand", id).await?;
    tx.execute("insert into item (name) values ($1)", params!["name"]).await?;
    tx.commit().await
}
