//! `consume_plain`: messages taken and acknowledged, beside the same with nothing but
//! async-nats. `consume_inbox`: each takes effect once, in transactions of many, beside the
//! same inserts in hand-written batches. `consume_inbox_single`: by a [`Consumer`] in a
//! transaction for each, beside those transactions by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use chassis_core::{Component as _, Env, Ready, Result, Shutdown, unix_ms};
use chassis_data::{Tx, params};
use chassis_messaging::{Consumer, ConsumerConfig, Delivery, Inbox, Subscription};
use chassis_test::figures::{Figure, median};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Item, LIMIT, Outcome, STREAM, TOPIC, World, message};

const MESSAGES: usize = 50_000;
/// With a transaction for each.
const SINGLE: usize = 10_000;
const ROUNDS: usize = 3;
/// Messages in hand.
const IN_HAND: usize = 1000;
/// Messages of one transaction.
const BATCH: usize = 500;
/// Handlers of a consumer, and connections of what is done by hand.
const HANDS: usize = 16;

pub(crate) async fn plain(world: &World) -> Outcome<Figure> {
    publish(world, MESSAGES).await?;
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        raws.push(raw(world, round).await?);
        let deliver = async |delivery: Vec<Delivery>| acknowledge(delivery).await;
        ours.push(batches(world, &format!("bench-plain-{round}"), 64, deliver).await?);
    }
    Ok(Figure {
        bench: "consume_plain".into(),
        value: median(ours),
        unit: "messages/s",
        anchor: "the same with async-nats alone",
        anchor_value: median(raws),
    })
}

pub(crate) async fn inbox(world: &World) -> Outcome<Vec<Figure>> {
    publish(world, MESSAGES).await?;
    let (mut hand, mut ours) = (Vec::new(), Vec::new());
    let (mut hand_single, mut ours_single) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        hand.push(batches_by_hand(world, round).await?);
        ours.push(in_batches(world, round).await?);
        hand_single.push(single_by_hand(world, round).await?);
        ours_single.push(single(world, round).await?);
    }
    Ok(vec![
        Figure {
            bench: "consume_inbox".into(),
            value: median(ours),
            unit: "messages/s",
            anchor: "the same inserts in hand-written batches",
            anchor_value: median(hand),
        },
        Figure {
            bench: "consume_inbox_single".into(),
            value: median(ours_single),
            unit: "messages/s",
            anchor: "the same transactions by hand",
            anchor_value: median(hand_single),
        },
    ])
}

/// Puts messages on the topic, all keys in turn.
async fn publish(world: &World, messages: usize) -> Outcome<()> {
    world.forget_messages().await;
    let mut under_way = FuturesUnordered::new();
    for number in 0..messages {
        under_way.push(world.broker.publish(message(number)));
        if under_way.len() >= 1000 {
            under_way.next().await.transpose()?;
        }
    }
    while let Some(published) = under_way.next().await {
        published?;
    }
    Ok(())
}

async fn raw(world: &World, round: usize) -> Outcome<f64> {
    let context = async_nats::jetstream::new(world.nats.clone());
    let stream = context.get_stream(STREAM).await?;
    let config = pull::Config {
        durable_name: Some(format!("raw-{round}")),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        filter_subject: TOPIC.to_owned(),
        max_ack_pending: IN_HAND as i64,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let start = Instant::now();
    let mut messages = consumer.stream().max_messages_per_batch(IN_HAND).messages().await?;
    for _ in 0..MESSAGES {
        let message = timeout(LIMIT, messages.next()).await?.ok_or("the stream ended")??;
        message.ack().await.map_err(|error| error.to_string())?;
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

/// Takes all messages for a group, as many at a time as are there.
async fn batches(
    world: &World,
    group: &str,
    most: usize,
    handle: impl AsyncFn(Vec<Delivery>) -> Result<()>,
) -> Outcome<f64> {
    let subscription = Subscription { max_in_flight: IN_HAND, ..Subscription::new(group, TOPIC) };
    let start = Instant::now();
    let mut deliveries = world.broker.subscribe(subscription).await?;
    let mut taken = 0;
    while taken < MESSAGES {
        let first = timeout(LIMIT, deliveries.next()).await??.ok_or("the broker was closed")?;
        let mut batch = vec![first];
        while batch.len() < most
            && let Some(Ok(Some(delivery))) = deliveries.next().now_or_never()
        {
            batch.push(delivery);
        }
        taken += batch.len();
        handle(batch).await?;
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

async fn acknowledge(batch: Vec<Delivery>) -> Result<()> {
    for delivery in batch {
        delivery.ack().await?;
    }
    Ok(())
}

async fn in_batches(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let inbox = Inbox::new(&world.db);
    let group = format!("bench-inbox-{round}");
    let handle = async |batch: Vec<Delivery>| {
        let ids: Vec<&str> = batch.iter().map(|delivery| delivery.message.id.as_str()).collect();
        let mut tx = world.db.begin().await?;
        let first = inbox.first_times(&mut tx, &group, &ids).await?;
        let new: Vec<&Delivery> =
            batch.iter().zip(first).filter(|(_, first)| *first).map(|(new, _)| new).collect();
        let names: Result<Vec<String>> =
            new.iter().map(|new| Ok(new.message.to_event::<Item>()?.pad)).collect();
        insert_items(&mut tx, &names?).await?;
        tx.commit().await?;
        acknowledge(batch).await
    };
    let rate = batches(world, &group, BATCH, handle).await?;
    expect(world, MESSAGES).await?;
    Ok(rate)
}

async fn insert_items(tx: &mut Tx<sqlx::Postgres>, names: &[String]) -> Result<()> {
    let sql = "insert into item (name) select json_array_elements_text($1::json)";
    let names = serde_json::to_string(names).map_err(chassis_core::Error::internal)?;
    tx.execute(sql, params![names]).await.map(drop)
}

/// What the database has to do for it, by statements as fast as can be had.
async fn batches_by_hand(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let start = Instant::now();
    let pad = item_pad()?;
    for batch in 0..MESSAGES / BATCH {
        let ids: Vec<String> =
            (0..BATCH).map(|number| message(batch * BATCH + number).id).collect();
        let mut tx = world.db.begin().await?;
        sqlx::query(
            "insert into chassis_inbox (consumer, message_id, received_at)
             select $1, unnest($2::text[]), $3 on conflict do nothing",
        )
        .bind(format!("by-hand-{round}"))
        .bind(ids)
        .bind(unix_ms())
        .execute(tx.conn())
        .await?;
        sqlx::query("insert into item (name) select unnest($1::text[])")
            .bind(vec![pad.clone(); BATCH])
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

async fn single(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    publish(world, SINGLE).await?;
    let (count, env) = (Arc::new(AtomicUsize::new(0)), Env::new(chassis_core::service_info!("b")));
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let group = format!("bench-single-{round}");
    let consumer = Consumer::new(&world.broker, &world.db, group, count.clone())
        .with_config(ConsumerConfig { concurrency: HANDS, ..ConsumerConfig::default() })
        .on::<Item>(take);
    let start = Instant::now();
    let consumer = tokio::spawn(Box::new(consumer).run(env, ready, shutdown));
    is_ready.await?;
    while count.load(Ordering::Relaxed) < SINGLE {
        if start.elapsed() > LIMIT {
            return Err("the consumer did not handle everything in time".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    let rate = SINGLE as f64 / start.elapsed().as_secs_f64();
    trigger.shutdown(LIMIT);
    consumer.await??;
    expect(world, SINGLE).await?;
    publish(world, MESSAGES).await?;
    Ok(rate)
}

async fn take(count: Arc<AtomicUsize>, tx: &mut Tx<sqlx::Postgres>, item: Item) -> Result<()> {
    tx.execute("insert into item (name) values ($1)", params![item.pad]).await?;
    tx.on_commit(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    Ok(())
}

async fn single_by_hand(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let start = Instant::now();
    let pad = item_pad()?;
    let hands = (0..HANDS).map(|hand| {
        let (db, inbox, pad) = (world.db.clone(), Inbox::new(&world.db), pad.clone());
        let consumer = format!("single-by-hand-{round}");
        tokio::spawn(async move {
            for number in (hand..SINGLE).step_by(HANDS) {
                let mut tx = db.begin().await?;
                inbox.first_time(&mut tx, &consumer, &message(number).id).await?;
                tx.execute("insert into item (name) values ($1)", params![&pad]).await?;
                tx.commit().await?;
            }
            Result::<()>::Ok(())
        })
    });
    for hand in hands.collect::<Vec<_>>() {
        hand.await?.map_err(Box::<dyn std::error::Error>::from)?;
    }
    Ok(SINGLE as f64 / start.elapsed().as_secs_f64())
}

fn item_pad() -> Outcome<String> {
    Ok(message(0).to_event::<Item>()?.pad)
}

/// Each message had its effect once.
async fn expect(world: &World, messages: usize) -> Outcome<()> {
    let row = world.db.fetch_optional("select count(*) from item", Vec::new()).await?;
    let effects = row.ok_or("no answer")?.int(0)?;
    if effects == messages as i64 {
        return Ok(());
    }
    Err(format!("{effects} effects of {messages} messages").into())
}
