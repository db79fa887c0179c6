//! `consume_plain`: messages taken and acknowledged, beside the same with nothing but
//! async-nats. `consume_inbox`: each takes effect once, by a [`Consumer`] with a batch handler,
//! beside the same notes and inserts by hand, without a broker: as many to a transaction, over
//! as many connections. `consume_inbox_by_hand`: the same, beside all of it by hand with
//! async-nats. `consume_inbox_single`: by a [`Consumer`] in a transaction for each, beside those
//! transactions by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use chassis_core::{Component as _, Env, Error, Ready, Result, Shutdown, unix_ms};
use chassis_data::{Tx, map_error, params};
use chassis_messaging::consumer::BatchConfig;
use chassis_messaging::{Consumer, ConsumerConfig, Inbox, Subscription};
use chassis_test::figures::{Figure, median};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{Database, Item, LIMIT, Outcome, STREAM, TOPIC, World, message};

const MESSAGES: usize = 50_000;
/// With a transaction for each.
const SINGLE: usize = 10_000;
const ROUNDS: usize = 3;
/// Messages in hand.
const IN_HAND: usize = 1000;
/// Taken before they are acknowledged.
const TOGETHER: usize = 64;
/// Messages of one transaction, and transactions at a time; together [`IN_HAND`].
const BATCH: usize = 250;
const LANES: usize = 4;
/// Handlers of a consumer, and connections of what is done by hand.
const HANDS: usize = 16;

pub(crate) async fn plain(world: &World) -> Outcome<Figure> {
    publish(world, MESSAGES).await?;
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        raws.push(raw(world, round).await?);
        ours.push(acknowledge(world, &format!("bench-plain-{round}")).await?);
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
    let (mut hand, mut ours, mut all_by_hand) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hand_single, mut ours_single) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        hand.push(batches_by_hand(world, round).await?);
        ours.push(in_batches(world, round).await?);
        all_by_hand.push(from_broker_by_hand(world, round).await?);
        hand_single.push(single_by_hand(world, round).await?);
        ours_single.push(single(world, round).await?);
    }
    let ours = median(ours);
    Ok(vec![
        Figure {
            bench: "consume_inbox".into(),
            value: ours,
            unit: "messages/s",
            anchor: "the same inserts in hand-written batches",
            anchor_value: median(hand),
        },
        Figure {
            bench: "consume_inbox_by_hand".into(),
            value: ours,
            unit: "messages/s",
            anchor: "taken, noted, inserted and acknowledged by hand, with async-nats",
            anchor_value: median(all_by_hand),
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

/// Messages of the topic for a consumer of that name, with nothing but async-nats.
async fn subscribe_raw(world: &World, name: String) -> Outcome<pull::Stream> {
    let context = async_nats::jetstream::new(world.nats.clone());
    let stream = context.get_stream(STREAM).await?;
    let config = pull::Config {
        durable_name: Some(name),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        filter_subject: TOPIC.to_owned(),
        max_ack_pending: IN_HAND as i64,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    Ok(consumer.stream().max_messages_per_batch(IN_HAND).messages().await?)
}

async fn raw(world: &World, round: usize) -> Outcome<f64> {
    let start = Instant::now();
    let mut messages = subscribe_raw(world, format!("raw-{round}")).await?;
    for _ in 0..MESSAGES {
        let message = timeout(LIMIT, messages.next()).await?.ok_or("the stream ended")??;
        message.ack().await.map_err(|error| error.to_string())?;
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

/// Takes all messages for a group, some at a time where there are some.
async fn acknowledge(world: &World, group: &str) -> Outcome<f64> {
    let subscription = Subscription { max_in_flight: IN_HAND, ..Subscription::new(group, TOPIC) };
    let start = Instant::now();
    let mut deliveries = world.broker.subscribe(subscription).await?;
    let mut taken = 0;
    while taken < MESSAGES {
        let first = timeout(LIMIT, deliveries.next()).await??.ok_or("the broker was closed")?;
        let mut some = vec![first];
        while some.len() < TOGETHER
            && let Some(Ok(Some(delivery))) = deliveries.next().now_or_never()
        {
            some.push(delivery);
        }
        taken += some.len();
        for delivery in some {
            delivery.ack().await?;
        }
    }
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

async fn in_batches(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let batch = BatchConfig { size: BATCH, lanes: LANES, ..BatchConfig::default() };
    let count = Arc::new(AtomicUsize::new(0));
    let group = format!("bench-inbox-{round}");
    let consumer = Consumer::new(&world.broker, &world.db, group, count.clone())
        .with_config(ConsumerConfig { batch, ..ConsumerConfig::default() })
        .on_batch::<Item>(take_all);
    consume(world, consumer, &count, MESSAGES).await
}

async fn take_all(
    count: Arc<AtomicUsize>,
    tx: &mut Tx<sqlx::Postgres>,
    items: Vec<Item>,
) -> Result<()> {
    let taken = items.len();
    insert_items(tx, items.into_iter().map(|item| item.pad).collect()).await?;
    tx.on_commit(move || {
        count.fetch_add(taken, Ordering::Relaxed);
    });
    Ok(())
}

async fn insert_items(tx: &mut Tx<sqlx::Postgres>, names: Vec<String>) -> Result<()> {
    let insert = sqlx::query("insert into item (name) select unnest($1::text[])").bind(names);
    insert.execute(tx.conn()).await.map_err(map_error).map(drop)
}

/// What the database has to do for it, by statements as fast as can be had.
async fn batches_by_hand(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let start = Instant::now();
    let pad = item_pad()?;
    let lanes = (0..LANES).map(|lane| {
        let (db, pad, consumer) = (world.db.clone(), pad.clone(), format!("by-hand-{round}"));
        tokio::spawn(async move {
            for batch in (lane..MESSAGES / BATCH).step_by(LANES) {
                let ids: Vec<String> =
                    (0..BATCH).map(|number| message(batch * BATCH + number).id).collect();
                insert_by_hand(&db, &consumer, ids, vec![pad.clone(); BATCH]).await?;
            }
            Result::<()>::Ok(())
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await?.map_err(Box::<dyn std::error::Error>::from)?;
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    expect(world, MESSAGES).await?;
    Ok(rate)
}

async fn insert_by_hand(
    db: &Database,
    consumer: &str,
    ids: Vec<String>,
    names: Vec<String>,
) -> Result<()> {
    let mut tx = db.begin().await?;
    let note = sqlx::query(
        "insert into chassis_inbox (consumer, message_id, received_at)
         select $1, unnest($2::text[]), $3 on conflict do nothing",
    );
    let note = note.bind(consumer).bind(ids).bind(unix_ms());
    note.execute(tx.conn()).await.map_err(map_error)?;
    insert_items(&mut tx, names).await?;
    tx.commit().await
}

/// The same from the broker, as short as it can be: no order of keys, no retry, no trace, no
/// metric, and a batch waits for its last message.
async fn from_broker_by_hand(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    let name = format!("all-by-hand-{round}");
    let start = Instant::now();
    let messages = Arc::new(Mutex::new(subscribe_raw(world, name.clone()).await?));
    let lanes = (0..LANES).map(|lane| {
        let (db, messages, name) = (world.db.clone(), messages.clone(), name.clone());
        tokio::spawn(async move {
            for _ in (lane..MESSAGES / BATCH).step_by(LANES) {
                let batch: Vec<_> = {
                    let mut messages = messages.lock().await;
                    (&mut *messages).take(BATCH).collect().await
                };
                let batch: Vec<_> =
                    batch.into_iter().collect::<Result<_, _>>().map_err(Error::internal)?;
                let id = |message: &jetstream::Message| {
                    let headers = message.headers.as_ref()?;
                    Some(headers.get(NATS_MESSAGE_ID)?.to_string())
                };
                let ids = batch.iter().filter_map(id).collect();
                let item = |message: &jetstream::Message| {
                    serde_json::from_slice::<Item>(&message.payload).map(|item| item.pad)
                };
                let names = batch.iter().map(item).collect::<Result<_, _>>();
                insert_by_hand(&db, &name, ids, names.map_err(Error::internal)?).await?;
                for message in batch {
                    message.ack().await.map_err(|error| Error::internal(error.to_string()))?;
                }
            }
            Result::<()>::Ok(())
        })
    });
    let all = futures_util::future::try_join_all(lanes.collect::<Vec<_>>());
    for lane in timeout(LIMIT, all).await?? {
        lane.map_err(Box::<dyn std::error::Error>::from)?;
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    expect(world, MESSAGES).await?;
    Ok(rate)
}

async fn single(world: &World, round: usize) -> Outcome<f64> {
    world.empty().await?;
    publish(world, SINGLE).await?;
    let count = Arc::new(AtomicUsize::new(0));
    let group = format!("bench-single-{round}");
    let consumer = Consumer::new(&world.broker, &world.db, group, count.clone())
        .with_config(ConsumerConfig { concurrency: HANDS, ..ConsumerConfig::default() })
        .on::<Item>(take);
    let rate = consume(world, consumer, &count, SINGLE).await?;
    publish(world, MESSAGES).await?;
    Ok(rate)
}

/// Runs a consumer until it has handled all messages, and says how many a second.
async fn consume(
    world: &World,
    consumer: Consumer<Arc<AtomicUsize>, sqlx::Postgres>,
    count: &AtomicUsize,
    messages: usize,
) -> Outcome<f64> {
    let env = Env::new(chassis_core::service_info!("b"));
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let start = Instant::now();
    let consumer = tokio::spawn(Box::new(consumer).run(env, ready, shutdown));
    is_ready.await?;
    while count.load(Ordering::Relaxed) < messages {
        if start.elapsed() > LIMIT {
            return Err("the consumer did not handle everything in time".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    trigger.shutdown(LIMIT);
    consumer.await??;
    expect(world, messages).await?;
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
