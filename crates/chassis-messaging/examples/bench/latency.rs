//! `commit_to_ack_p50_ms` and `_p99_ms`: from the commit of a business transaction to
//! the broker's acknowledgement of its event, at 1 000 events a second. The anchor is
//! one raw publish with a message id, from call to acknowledgement.
//!
//! Ten writers each draw their keys from a seed of their own: two events of a key are as near
//! to each other as chance brings them. Order within a key is strict, so if all writers went
//! through the keys in step, what would be measured is nine events waiting for the one before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use chassis_data::params;
use chassis_messaging::broker::Tails;
use chassis_messaging::{Broker, Message, Publisher};
use chassis_test::figures::{Figure, percentile};
use parking_lot::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use crate::world::{KEYS, LIMIT, Outcome, Running, World, message};

pub(crate) const WRITERS: usize = 10;
const EVERY: Duration = Duration::from_millis(10);
const EVENTS_EACH: usize = 1000;
/// Events at the beginning that do not count: connections and streams are made.
pub(crate) const WARM_UP: usize = 100;
/// Where the keys come from.
const SEED: u64 = 1;
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
            // The first counts: a row may be published again.
            self.acks.lock().entry(id).or_insert_with(Instant::now);
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
    let mut times =
        latencies(world, commits, |event| timed.acks.lock().get(&event.id).copied()).await?;
    relay.stop().await?;
    let mut figure = |bench: &str, share| Figure {
        bench: bench.into(),
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
            let mut tick = ticks();
            let mut commits = Vec::with_capacity(EVENTS_EACH);
            for number in numbers(writer).take(EVENTS_EACH) {
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

/// When a writer is to write.
pub(crate) fn ticks() -> Interval {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    tick
}

/// The numbers of a writer's events: each is the only one of its kind, and has any key.
pub(crate) fn numbers(writer: usize) -> impl Iterator<Item = usize> {
    let mut keys = fastrand::Rng::with_seed(SEED + writer as u64);
    (0..).map(move |event| (event * WRITERS + writer) * KEYS + keys.usize(..KEYS))
}

/// Milliseconds from each commit to what `seen` tells of it. Where nothing has come through
/// for a while, says what became of the first that is missing: a machine that has other work
/// may take long for all of them, and that is no loss.
pub(crate) async fn latencies(
    world: &World,
    commits: Vec<Committed>,
    seen: impl Fn(&Committed) -> Option<Instant>,
) -> Outcome<Vec<f64>> {
    let mut times = Vec::with_capacity(commits.len());
    let mut missing = commits;
    let mut progress = Instant::now();
    loop {
        let before = missing.len();
        missing.retain(|event| {
            let Some(end) = seen(event) else { return true };
            // The relay may be faster than the answer to whoever committed.
            times.push(end.saturating_duration_since(event.at).as_secs_f64() * 1000.0);
            false
        });
        let Some(first) = missing.first() else { return Ok(times) };
        if missing.len() < before {
            progress = Instant::now();
        } else if progress.elapsed() > LIMIT {
            let fate = fate(world, &first.id).await?;
            return Err(format!("{} events did not come through; {fate}", missing.len()).into());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Where an event is that did not come through.
async fn fate(world: &World, id: &str) -> Outcome<String> {
    let sql = "select state, attempts, (select count(*) from chassis_outbox where state = 0),
            (select count(*) from chassis_inbox where message_id = $1)
        from chassis_outbox where id = $1";
    let Some(row) = world.db.fetch_optional(sql, params![id]).await? else {
        return Ok(format!("the row of {id} is gone"));
    };
    Ok(format!(
        "the row of {id} is in state {} after {} refusals, {} rows are pending, and the inbox \
         has {} notes of it",
        row.int(0)?,
        row.int(1)?,
        row.int(2)?,
        row.int(3)?
    ))
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
