//! `commit_to_ack_p50_ms` and `_p99_ms`: from the commit of a business transaction to
//! the broker's acknowledgement of its event, at 1 000 events a second. The anchor is
//! one raw publish with a message id, from call to acknowledgement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use chassis_data::params;
use chassis_messaging::broker::Tails;
use chassis_messaging::{Broker, Message, Publisher};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::Figure;
use crate::world::{LIMIT, Outcome, Running, World, message, percentile};

const WRITERS: usize = 10;
const EVERY: Duration = Duration::from_millis(10);
const EVENTS_EACH: usize = 1000;
/// Events at the beginning that do not count: connections and streams are made.
const WARM_UP: usize = 100;
const RAW: usize = 2000;

/// An event that was committed.
pub(crate) struct Committed {
    pub(crate) id: String,
    pub(crate) number: usize,
    at: Instant,
}

/// Notes when a message was acknowledged.
#[derive(Clone)]
struct Timed {
    broker: Broker,
    acks: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Publisher for Timed {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let id = message.id.clone();
            self.broker.publish(message).await?;
            self.acks.lock().insert(id, Instant::now());
            Ok(())
        })
    }

    fn tails(&self) -> Option<&dyn Tails> {
        self.broker.tails()
    }
}

pub(crate) async fn run(world: &World) -> Outcome<Vec<Figure>> {
    world.empty().await?;
    let mut raw = raw(world).await?;
    let timed = Timed { broker: world.broker.clone(), acks: Arc::default() };
    let relay = Running::start(&world.outbox, &timed).await?;
    let commits = write(world).await?;
    let mut times = latencies(commits, |event| timed.acks.lock().get(&event.id).copied()).await?;
    relay.stop().await?;
    let mut figure = |bench, share| Figure {
        bench,
        value: percentile(&mut times, share),
        unit: "ms",
        anchor: "one raw JetStream publish and its acknowledgement",
        anchor_value: percentile(&mut raw, share),
    };
    Ok(vec![figure("commit_to_ack_p50_ms", 0.5), figure("commit_to_ack_p99_ms", 0.99)])
}

/// Business transactions with an event each, at a thousand a second, without those of
/// the warm-up.
pub(crate) async fn write(world: &World) -> Outcome<Vec<Committed>> {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (db, outbox) = (world.db.clone(), world.outbox.clone());
        writers.push(tokio::spawn(async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut commits = Vec::with_capacity(EVENTS_EACH);
            for number in 0..EVENTS_EACH {
                let number = writer * EVENTS_EACH + number;
                tick.tick().await;
                let mut tx = db.begin().await?;
                tx.execute("insert into item (name) values ($1)", params!["name"]).await?;
                let id = outbox.append_message(&mut tx, message(number)).await?;
                tx.commit().await?;
                commits.push(Committed { id, number, at: Instant::now() });
            }
            Result::<Vec<_>>::Ok(commits)
        }));
    }
    let mut commits = Vec::new();
    for writer in writers {
        commits.extend(writer.await??.into_iter().skip(WARM_UP));
    }
    Ok(commits)
}

/// Milliseconds from each commit to what `seen` tells of it.
pub(crate) async fn latencies(
    commits: Vec<Committed>,
    seen: impl Fn(&Committed) -> Option<Instant>,
) -> Outcome<Vec<f64>> {
    let mut times = Vec::with_capacity(commits.len());
    for event in commits {
        let end = loop {
            if let Some(end) = seen(&event) {
                break end;
            }
            if event.at.elapsed() > LIMIT {
                return Err("an event got lost on its way".into());
            }
            sleep(Duration::from_millis(1)).await;
        };
        // The relay may be faster than the answer to whoever committed.
        times.push(end.saturating_duration_since(event.at).as_secs_f64() * 1000.0);
    }
    Ok(times)
}

async fn raw(world: &World) -> Outcome<Vec<f64>> {
    let mut times = Vec::with_capacity(RAW);
    for number in 0..RAW {
        let start = Instant::now();
        world.broker.publish(message(number)).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}
