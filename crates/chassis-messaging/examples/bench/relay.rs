//! `relay_throughput`: from the table to the broker, beside the same number of raw
//! pipelined publishes with message ids.

use std::time::Duration;

use async_nats::jetstream::{context::ContextBuilder, message::PublishMessage, stream};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use crate::Figure;
use crate::world::{Outcome, PAYLOAD, RAW_STREAM, Running, World, median};

const MESSAGES: usize = 100_000;
const ROUNDS: usize = 3;
/// A round that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// Raw publishes under way at the same time.
const PIPELINE: usize = 4096;

pub(crate) async fn run(world: &World) -> Outcome<Figure> {
    let (mut raw_rates, mut relay_rates) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        raw_rates.push(raw(world, round).await?);
        relay_rates.push(relay(world).await?);
    }
    Ok(Figure {
        bench: "relay_throughput",
        value: median(relay_rates),
        unit: "messages/s",
        anchor: "raw pipelined JetStream publishes with message ids",
        anchor_value: median(raw_rates),
    })
}

async fn raw(world: &World, round: usize) -> Outcome<f64> {
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
    let start = Instant::now();
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
    Ok(MESSAGES as f64 / start.elapsed().as_secs_f64())
}

async fn relay(world: &World) -> Outcome<f64> {
    world.empty().await?;
    world.fill(MESSAGES as i64, 0).await?;
    let start = Instant::now();
    let relay = Running::start(&world.outbox, &world.broker).await?;
    let published = relay.env.metrics().counter("outbox_published", "", &[]);
    while published.get() < MESSAGES as u64 {
        if start.elapsed() > LIMIT {
            return Err("the relay did not publish everything in time".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    relay.stop().await?;
    Ok(rate)
}
