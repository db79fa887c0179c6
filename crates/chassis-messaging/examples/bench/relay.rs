//! `relay_throughput`: from the table to the broker, beside the same number of raw
//! pipelined publishes with message ids. `relay_cpu`: the same in CPU time of all processes.
//! `relay_by_hand`: beside a relay of thirty lines.

use std::time::Duration;

use async_nats::jetstream::{context::ContextBuilder, message::PublishMessage, stream};
use chassis_test::figures::{Figure, median};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use crate::cpu;
use crate::world::{LIMIT, Outcome, PAYLOAD, RAW_STREAM, Running, World};

const MESSAGES: usize = 100_000;
const ROUNDS: usize = 3;
/// Raw publishes under way at the same time.
const PIPELINE: usize = 4096;

/// What one round took.
struct Took {
    rate: f64,
    /// Microseconds a message.
    cpu: Option<f64>,
}

/// From the beginning of a round.
struct Clock(Instant, Option<f64>);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now(), cpu::total())
    }

    fn stop(self) -> Took {
        let rate = MESSAGES as f64 / self.0.elapsed().as_secs_f64();
        let cpu = self.1.zip(cpu::total()).map(|(from, to)| (to - from) / MESSAGES as f64);
        Took { rate, cpu }
    }
}

pub(crate) async fn run(world: &World) -> Outcome<Vec<Figure>> {
    let (mut raws, mut relays, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        raws.push(raw(world, round).await?);
        relays.push(relay(world).await?);
        by_hand.push(relay_by_hand(world).await?);
    }
    let rates = |all: &[Took]| median(all.iter().map(|took| took.rate).collect());
    let cpus = |all: &[Took]| median(all.iter().filter_map(|took| took.cpu).collect());
    let anchor = "raw pipelined JetStream publishes with message ids";
    let mut figures = vec![Figure {
        bench: "relay_throughput".into(),
        value: rates(&relays),
        unit: "messages/s",
        anchor,
        anchor_value: rates(&raws),
    }];
    figures.push(Figure {
        bench: "relay_by_hand".into(),
        value: rates(&relays),
        unit: "messages/s",
        anchor: "a relay by hand: reads, publishes together, marks, in turn, in no order",
        anchor_value: rates(&by_hand),
    });
    if cpu::total().is_some() {
        figures.push(Figure {
            bench: "relay_cpu".into(),
            value: cpus(&relays),
            unit: "us of CPU/message",
            anchor,
            anchor_value: cpus(&raws),
        });
    }
    Ok(figures)
}

async fn raw(world: &World, round: usize) -> Outcome<Took> {
    let context = ContextBuilder::new()
        .max_ack_inflight(PIPELINE)
        .backpressure_on_inflight(true)
        .build(world.nats.clone());
    let config = stream::Config {
        name: RAW_STREAM.to_owned(),
        subjects: vec![RAW_STREAM.to_owned()],
        duplicate_window: Duration::from_secs(600),
        ..stream::Config::default()
    };
    context.get_or_create_stream(config).await?;
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);
    let mut acks = FuturesUnordered::new();
    let clock = Clock::start();
    for number in 0..MESSAGES {
        let id = format!("{round}-{number:032}");
        let publish = PublishMessage::build().payload(payload.clone()).message_id(id);
        acks.push(context.send_publish(RAW_STREAM, publish).await?.into_future());
        while acks.len() >= PIPELINE {
            acks.next().await.transpose()?;
        }
    }
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(clock.stop())
}

/// What most write first: rows are read, published all at once and marked, and then the next. No
/// order of keys, no lease, no retry, one relay.
async fn relay_by_hand(world: &World) -> Outcome<Took> {
    const ROWS: i64 = 1000;
    world.empty().await?;
    world.fill(MESSAGES as i64, false).await?;
    let context = ContextBuilder::new()
        .max_ack_inflight(PIPELINE)
        .backpressure_on_inflight(true)
        .build(world.nats.clone());
    let clock = Clock::start();
    loop {
        let mut tx = world.db.begin().await?;
        let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
            "select seq, id, payload from chassis_outbox where state = 0 order by seq limit $1",
        )
        .bind(ROWS)
        .fetch_all(tx.conn())
        .await?;
        if rows.is_empty() {
            return Ok(clock.stop());
        }
        let (mut seqs, mut acks) = (Vec::new(), FuturesUnordered::new());
        for (seq, id, payload) in rows {
            let publish = PublishMessage::build().payload(payload.into()).message_id(id);
            acks.push(context.send_publish(RAW_STREAM, publish).await?.into_future());
            seqs.push(seq);
        }
        while let Some(ack) = acks.next().await {
            ack?;
        }
        sqlx::query("update chassis_outbox set state = 1, published_at = 1 where seq = any($1)")
            .bind(seqs)
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
    }
}

async fn relay(world: &World) -> Outcome<Took> {
    world.empty().await?;
    world.fill(MESSAGES as i64, false).await?;
    let clock = Clock::start();
    let relay = Running::start(&world.outbox, &world.broker).await?;
    let published = relay.env.metrics().counter("outbox_published", "", &[]);
    while published.get() < MESSAGES as u64 {
        if clock.0.elapsed() > LIMIT {
            return Err("the relay did not publish everything in time".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    // The last marks belong to it.
    relay.stop().await?;
    Ok(clock.stop())
}
