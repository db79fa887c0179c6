//! A broker that lost what it had acknowledged: nothing is lost for good.
//!
//! Each scenario gets a way to lose something, so that they run on any broker.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chassis_core::Status;
use chassis_data::{Backend, DatabaseConfig, Db, Dialect};
use chassis_messaging::outbox::{OnLoss, Outbox, OutboxConfig};
use chassis_messaging::{Broker, Deliveries, Event, Subscription};
use chassis_test::eventually;
use tempfile::TempDir;

use super::outbox_scenarios::{ItemAdded, Running, append, outbox, quick};

/// A server that restarts and a replay that waits for leases take their time.
const SOON: Duration = Duration::from_secs(40);
const KEYS: u32 = 4;

pub(crate) async fn sqlite() -> (TempDir, Db) {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("service.db").display());
    (folder, Db::connect(&DatabaseConfig::url(url)).await.unwrap())
}

/// A service with an outbox on a broker.
pub(crate) struct Stage<B: Backend> {
    pub(crate) db: Db<B>,
    pub(crate) outbox: Outbox<B>,
    pub(crate) broker: Broker,
    pub(crate) relay: Running,
    next: u32,
}

impl<B: Backend> Stage<B> {
    pub(crate) async fn new(db: Db<B>, broker: Broker, on_loss: OnLoss) -> Stage<B> {
        let outbox = outbox(&db, OutboxConfig { on_loss, ..quick() }).await;
        let relay = Running::start(&outbox, &broker).await;
        relay.env.health().set_started();
        Stage { db, outbox, broker, relay, next: 0 }
    }

    /// Appends one event to each key, again and again.
    pub(crate) async fn append(&mut self, rounds: u32) {
        for _ in 0..rounds {
            for key in 0..KEYS {
                append(&self.db, &self.outbox, &format!("key-{key}"), self.next).await;
            }
            self.next += 1;
        }
    }

    pub(crate) async fn until_published(&self) {
        eventually("all is published", SOON, async || {
            let sql = "SELECT COUNT(*) FROM chassis_outbox WHERE state <> 1";
            let row = self.db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
            (row.int(0).unwrap() == 0).then_some(())
        })
        .await;
    }

    /// Waits until the newest acknowledgement is written down.
    pub(crate) async fn until_checkpoint(&self) {
        use chassis_messaging::Publisher as _;
        eventually("a checkpoint", SOON, async || {
            let tails = self.broker.tails().unwrap().ledger().tails();
            let newest = tails.iter().map(|tail| tail.witness.position).max()?;
            let sql = "SELECT MAX(position) FROM chassis_outbox_tail WHERE slot < 120";
            let row = self.db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
            (row.opt_int(0).unwrap() == i64::try_from(newest).ok()).then_some(())
        })
        .await;
    }

    pub(crate) fn losses(&self, stream: &str) -> u64 {
        let labels = [("stream", stream)];
        self.relay.env.metrics().counter("outbox_stream_losses", "", &labels).get()
    }

    pub(crate) async fn until_health(&self, expected: Status) {
        eventually(&format!("health is {expected:?}"), SOON, async || {
            self.relay.env.health().check_now().await;
            (self.relay.env.health().status() == expected).then_some(())
        })
        .await;
    }

    /// From now on no relay gets to write a checkpoint: what it writes once a second comes
    /// too late.
    pub(crate) async fn stop_checkpoints(&self) {
        let statements: &[&str] = match self.db.dialect() {
            Dialect::Sqlite => &["CREATE TRIGGER late BEFORE INSERT ON chassis_outbox_tail
                WHEN NEW.slot < 120 BEGIN SELECT RAISE(IGNORE); END"],
            Dialect::Postgres => &[
                "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN IF NEW.slot < 120 THEN RETURN NULL; END IF; RETURN NEW; END'",
                "CREATE TRIGGER late BEFORE INSERT ON chassis_outbox_tail
                FOR EACH ROW EXECUTE FUNCTION late()",
            ],
        };
        for &sql in statements {
            self.db.execute(sql, Vec::new()).await.unwrap();
        }
    }

    /// The same service as another process, after this one is gone.
    pub(crate) async fn restart(self, broker: Broker) -> Stage<B> {
        let Stage { db, relay, next, .. } = self;
        relay.stop(SOON).await;
        Stage::another(db, broker, next).await
    }

    /// The same after this one was killed.
    pub(crate) async fn killed(self, broker: impl AsyncFnOnce() -> Broker) -> Stage<B> {
        let Stage { db, relay, next, broker: gone, .. } = self;
        relay.die().await;
        drop(gone);
        Stage::another(db, broker().await, next).await
    }

    async fn another(db: Db<B>, broker: Broker, next: u32) -> Stage<B> {
        let config = OutboxConfig { on_loss: OnLoss::Replay, ..quick() };
        let outbox = Outbox::new(&db, "tester").with_config(config);
        let relay = Running::start(&outbox, &broker).await;
        relay.env.health().set_started();
        Stage { db, outbox, relay, broker, next }
    }
}

/// A group that notes what takes effect, as a handler with an inbox does.
pub(crate) struct Group {
    deliveries: Box<dyn Deliveries>,
    pub(crate) seen: BTreeSet<String>,
    pub(crate) effects: BTreeMap<String, Vec<u32>>,
    /// Deliveries of what had taken effect.
    pub(crate) repeated: usize,
}

impl Group {
    pub(crate) async fn join(broker: &Broker) -> Group {
        let subscription = Subscription {
            ack_wait: Duration::from_secs(2),
            ..Subscription::new("group", ItemAdded::TOPIC)
        };
        let deliveries = eventually("the group", SOON, async || {
            broker.subscribe(subscription.clone()).await.ok()
        })
        .await;
        Group { deliveries, seen: BTreeSet::new(), effects: BTreeMap::new(), repeated: 0 }
    }

    /// The same group in another process.
    pub(crate) async fn moved(self, broker: &Broker) -> Group {
        drop(self.deliveries);
        Group { deliveries: Group::join(broker).await.deliveries, ..self }
    }

    /// Handles until so many have taken effect.
    pub(crate) async fn until(&mut self, count: usize) {
        while self.seen.len() < count {
            let next = tokio::time::timeout(SOON, self.deliveries.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{} of {count}", self.seen.len()));
            let delivery = next.unwrap().expect("the broker is open");
            let item: ItemAdded = delivery.message.to_event().unwrap();
            if self.seen.insert(delivery.message.id.clone()) {
                self.effects.entry(item.key).or_default().push(item.number);
            } else {
                self.repeated += 1;
            }
            // What was in hand at a loss cannot be acknowledged: its number is another's.
            if let Err(error) = delivery.ack().await {
                assert_eq!(error.reason(), "BROKER_UNAVAILABLE");
            }
        }
    }

    /// All took effect, in the order of their keys.
    pub(crate) fn check(&self, rounds: u32) {
        for (key, numbers) in &self.effects {
            assert_eq!(*numbers, (0..rounds).collect::<Vec<_>>(), "{key}");
        }
        assert_eq!(self.effects.len(), KEYS as usize);
    }
}

/// A loss while the service runs, that nobody had handled yet: it is replayed before
/// anything new is published.
pub(crate) async fn a_loss_is_replayed<B: Backend>(
    mut stage: Stage<B>,
    stream: &str,
    lose: impl AsyncFnOnce(),
) {
    stage.append(5).await;
    stage.until_published().await;
    let mut group = Group::join(&stage.broker).await;
    group.until(2 * KEYS as usize).await;
    lose().await;
    stage.append(5).await;
    stage.until_health(Status::Degraded).await;
    group.until(10 * KEYS as usize).await;
    group.check(10);
    assert_eq!(stage.losses(stream), 1, "told once");
    stage.until_health(Status::Up).await;
    stage.append(1).await;
    group.until(11 * KEYS as usize).await;
    group.check(11);
    assert_eq!(stage.losses(stream), 1);
    stage.relay.stop(SOON).await;
    stage.broker.close().await;
}

/// A loss while the service is down is found by what it had written down.
pub(crate) async fn a_loss_between_two_runs_is_replayed<B: Backend>(
    mut stage: Stage<B>,
    stream: &str,
    lose_and_open: impl AsyncFnOnce() -> Broker,
) {
    let before = stage.next;
    stage.append(6).await;
    stage.until_published().await;
    // All is handled: what was in hand when a consumer dies may be overtaken later.
    let mut group = Group::join(&stage.broker).await;
    group.until(((before + 6) * KEYS) as usize).await;
    stage.until_checkpoint().await;
    stage.broker.close().await;
    let broker = lose_and_open().await;
    let mut stage = stage.restart(broker).await;
    stage.append(2).await;
    let mut group = group.moved(&stage.broker).await;
    group.until(((before + 8) * KEYS) as usize).await;
    group.check(before + 8);
    assert_eq!(stage.losses(stream), 1);
    stage.until_health(Status::Up).await;
    stage.relay.stop(SOON).await;
    stage.broker.close().await;
}

/// A relay that dies together with the end of the stream had marked rows of which nothing
/// was written down but with the marks. `lose_and_open` takes the last quarter away.
pub(crate) async fn what_was_marked_just_before_a_double_death_is_replayed<B: Backend>(
    mut stage: Stage<B>,
    stream: &str,
    lose_and_open: impl AsyncFnOnce() -> Broker,
) {
    stage.append(6).await;
    stage.until_published().await;
    stage.until_checkpoint().await;
    stage.stop_checkpoints().await;
    stage.append(6).await;
    stage.until_published().await;
    let mut stage = stage.killed(lose_and_open).await;
    stage.append(2).await;
    let mut group = Group::join(&stage.broker).await;
    group.until(14 * KEYS as usize).await;
    group.check(14);
    assert_eq!(stage.losses(stream), 1);
    stage.until_health(Status::Up).await;
    stage.relay.stop(SOON).await;
    stage.broker.close().await;
}

/// With `alert`, an operator decides; until then the service is degraded.
pub(crate) async fn a_loss_waits_for_an_operator<B: Backend>(
    mut stage: Stage<B>,
    lose: impl AsyncFnOnce(),
) {
    stage.append(3).await;
    stage.until_published().await;
    lose().await;
    stage.append(1).await;
    stage.until_health(Status::Degraded).await;
    let mut group = Group::join(&stage.broker).await;
    group.until(KEYS as usize).await;
    assert!(group.effects.values().all(|numbers| *numbers == [3]), "{:?}", group.effects);
    stage.until_published().await;
    let rows = stage.outbox.replay_since(0).await.unwrap();
    assert_eq!(rows, u64::from(4 * KEYS));
    group.until(4 * KEYS as usize).await;
    stage.until_health(Status::Up).await;
    stage.relay.stop(SOON).await;
    stage.broker.close().await;
}
