//! Streams that were deleted, truncated, purged or are full, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chassis_core::Code;
use chassis_data::{DatabaseConfig, Db};
use chassis_messaging::outbox::OnLoss;
use chassis_messaging::{Broker, BrokerConfig, Message, Publisher as _, Subscription};
use chassis_test::servers::{Nats, Postgres};
use chassis_test::{Direction, FaultProxy, eventually};
use futures_util::future::try_join_all;

#[path = "../it/freeze_scenarios.rs"]
mod freeze_scenarios;
#[path = "../it/loss_scenarios.rs"]
pub(crate) mod loss_scenarios;
#[path = "../it/message_faults.rs"]
mod message_faults;
#[path = "../it/outage_scenarios.rs"]
mod outage_scenarios;

use crate::{outbox_pg::outbox_scenarios, world};
use loss_scenarios::{Group, Stage, sqlite};

const SOON: Duration = Duration::from_secs(40);

pub(crate) async fn connect(nats: &Nats) -> Broker {
    Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap()
}

async fn jetstream(nats: &Nats) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

async fn delete(nats: &Nats) {
    jetstream(nats).await.delete_stream("items").await.unwrap();
}

/// Kills the server and takes away what had not reached the disk: the last part of
/// what the stream `items` has in its files.
async fn lose_the_tail(nats: &Nats) {
    keep(nats, 2, 4).await;
}

/// The same; so many parts of so many stay.
pub(crate) async fn keep(nats: &Nats, parts: u64, of: u64) {
    nats.stop();
    let mut blocks = Vec::new();
    find_blocks(&nats.store(), &mut blocks);
    assert!(!blocks.is_empty());
    for block in blocks {
        let file = File::options().write(true).open(block).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length * parts / of).unwrap();
    }
    nats.restart().await;
}

fn find_blocks(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_blocks(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "blk")
            && path.components().any(|part| part.as_os_str() == "items")
            && path.components().any(|part| part.as_os_str() == "msgs")
        {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_replayed() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    loss_scenarios::a_loss_is_replayed(stage, "items", async || delete(&nats).await).await;
}

/// A server says that a stream is gone before its files are, and one of 2.9 that is told to
/// make it again meanwhile builds on those: it then refuses what is published, or forgets it
/// at its next start. Here somebody is always about to publish.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_under_load_is_made_again_on_firm_ground() {
    const ROUNDS: u64 = 10;
    let nats = Nats::start().await;
    let broker = connect(&nats).await;
    let context = jetstream(&nats).await;
    let stored = AtomicU64::new(0);
    for _ in 0..ROUNDS {
        broker.publish(Message::new("items.first", "t.v1", "x")).await.unwrap();
        for _ in 0..8 {
            let ballast = || context.publish("items.ballast", vec![b'x'; 4000].into());
            let answers = try_join_all((0..250).map(|_| ballast())).await.unwrap();
            try_join_all(answers.into_iter().map(IntoFuture::into_future)).await.unwrap();
        }
        stored.store(0, Ordering::SeqCst);
        let publishing = async {
            loop {
                // Each in its turn may be refused while the stream is gone.
                if broker.publish(Message::new("items.added", "t.v1", "x")).await.is_ok() {
                    stored.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        };
        let deleting = async {
            context.delete_stream("items").await.unwrap();
            let before = stored.load(Ordering::SeqCst);
            eventually("publishing goes on", SOON, async || {
                (stored.load(Ordering::SeqCst) >= before + 50).then_some(())
            })
            .await;
        };
        tokio::select! {
            () = publishing => {}
            () = deleting => {}
        }
    }
    let items = async || jetstream(&nats).await.get_stream("items").await.unwrap();
    let before = items().await.cached_info().state.messages;
    assert!(before >= 50, "{before}");
    nats.restart().await;
    assert_eq!(items().await.cached_info().state.messages, before, "forgotten at the restart");
}

/// A server of 2.9 may tell nobody that a consumer is gone, and then answers nothing to
/// who asks it for messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_publishes_nothing_gets_over_a_deleted_stream() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let mut stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    let broker = connect(&nats).await;
    let mut group = Group::join(&broker).await;
    stage.append(5).await;
    group.until(20).await;
    stage.until_published().await;
    delete(&nats).await;
    stage.append(5).await;
    group.until(40).await;
    group.check(10);
    stage.relay.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_replayed() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    loss_scenarios::a_loss_is_replayed(stage, "items", async || lose_the_tail(&nats).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_replayed_from_postgres() {
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("losses").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    loss_scenarios::a_loss_is_replayed(stage, "items", async || lose_the_tail(&nats).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_between_two_runs_is_replayed() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    loss_scenarios::a_loss_between_two_runs_is_replayed(stage, "items", async || {
        lose_the_tail(&nats).await;
        connect(&nats).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_marked_just_before_a_double_death_is_replayed() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    let lose = async || {
        keep(&nats, 3, 4).await;
        connect(&nats).await
    };
    loss_scenarios::what_was_marked_just_before_a_double_death_is_replayed(stage, "items", lose)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_marked_just_before_a_double_death_is_replayed_from_postgres() {
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("losses").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    let lose = async || {
        keep(&nats, 3, 4).await;
        connect(&nats).await
    };
    loss_scenarios::what_was_marked_just_before_a_double_death_is_replayed(stage, "items", lose)
        .await;
}

/// Waits until each of two relays has half of the partitions.
pub(crate) async fn both_hold_a_share(db: &Db<sqlx::Postgres>) {
    eventually("both relays hold a share", SOON, async || {
        let sql = "SELECT COUNT(*) FROM chassis_outbox_lease WHERE owner <> '' AND expires_at > 0
            GROUP BY owner";
        let rows = db.fetch_all(sql, Vec::new()).await.unwrap();
        (rows.len() == 2 && rows.iter().all(|row| row.int(0).unwrap() == 8)).then_some(())
    })
    .await;
}

/// A relay takes partitions over from one that died together with the end of the stream. It
/// never had anything to do with what is lost, and nothing is published before that.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_relay_had_marked_is_looked_for_when_its_partitions_are_taken_over() {
    const KEYS: u32 = 16;
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("losses").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let dies = Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await;
    let heir = Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await;
    both_hold_a_share(&db).await;
    let append = async |key: &str, number| {
        outbox_scenarios::append(&db, &heir.outbox, key, number).await;
    };
    for number in 0..6 {
        for key in 0..KEYS {
            append(&format!("key-{key}"), number).await;
        }
    }
    heir.until_published().await;
    dies.until_checkpoint().await;
    heir.stop_checkpoints().await;
    // The name of a relay begins with the time.
    let sql = "SELECT DISTINCT o.msg_key FROM chassis_outbox o JOIN chassis_outbox_lease l
        ON l.part = o.part WHERE l.owner = (SELECT MIN(owner) FROM chassis_outbox_relay)";
    let rows = db.fetch_all(sql, Vec::new()).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect();
    assert!(keys.len() > 1 && keys.len() < KEYS as usize, "{keys:?}");
    for number in 6..12 {
        for key in &keys {
            append(key, number).await;
        }
    }
    heir.until_published().await;
    dies.relay.die().await;
    // Some of the last six, and nothing of the first.
    keep(&nats, 9, 10).await;
    for key in &keys {
        append(key, 12).await;
    }
    let mut group = Group::join(&heir.broker).await;
    group.until(KEYS as usize * 6 + keys.len() * 7).await;
    for (key, numbers) in &group.effects {
        let rounds = if keys.contains(key) { 13 } else { 6 };
        assert_eq!(*numbers, (0..rounds).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(heir.losses("items"), 1);
    heir.until_health(chassis_core::Status::Up).await;
    heir.relay.stop(SOON).await;
    heir.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_waits_for_an_operator() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, connect(&nats).await, OnLoss::Alert).await;
    loss_scenarios::a_loss_waits_for_an_operator(stage, async || delete(&nats).await).await;
}

/// A group that had everything is ahead of a stream that lost its end. A server of 2.9
/// then skips as many new messages as were lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_ahead_of_its_stream_skips_nothing() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let mut stage = Stage::new(db, connect(&nats).await, OnLoss::Alert).await;
    stage.append(10).await;
    stage.until_published().await;
    let mut group = Group::join(&stage.broker).await;
    group.until(40).await;
    lose_the_tail(&nats).await;
    // Nothing is published again, so these take the places of what was lost.
    stage.append(2).await;
    group.until(48).await;
    group.check(12);
}

/// What a client had in its buffer when the server died is published as soon as it is back,
/// before anybody has looked at what it still has: in the places of what was lost, which the
/// group had. A server of 2.9 then takes it for that.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_before_anybody_looks_is_not_skipped() {
    const EARLY: u32 = 25;
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let mut stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    stage.append(10).await;
    stage.until_published().await;
    let mut group = Group::join(&stage.broker).await;
    group.until(40).await;
    stage.until_checkpoint().await;
    let model = jetstream(&nats).await.get_stream("items").await.unwrap();
    let model = model.get_raw_message(40).await.unwrap();
    let stage = stage
        .killed(async || {
            lose_the_tail(&nats).await;
            let context = jetstream(&nats).await;
            for number in 0..EARLY {
                let (mut headers, id) = (model.headers.clone(), format!("early-{number}"));
                headers.insert("ce-id", id.as_str());
                headers.insert("Nats-Msg-Id", id.as_str());
                let payload = format!(r#"{{"key":"early","number":{number}}}"#);
                let sent = context.publish_with_headers("items.added", headers, payload.into());
                sent.await.unwrap().await.unwrap();
            }
            connect(&nats).await
        })
        .await;
    let mut group = group.moved(&stage.broker).await;
    group.until(40 + EARLY as usize).await;
    // The first ones after those that had gone on: who minds waits for its turn in the inbox.
    let mut early = group.effects.remove("early").unwrap();
    early.sort_unstable();
    assert_eq!(early, (0..EARLY).collect::<Vec<_>>());
    group.check(10);
}

/// The server drops repetitions also of what was purged; a replay is stored all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_a_purge_is_not_swallowed() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let mut stage = Stage::new(db, connect(&nats).await, OnLoss::Replay).await;
    stage.append(5).await;
    stage.until_published().await;
    let items = jetstream(&nats).await.get_stream("items").await.unwrap();
    items.purge().await.unwrap();
    stage.append(1).await;
    stage.until_published().await;
    assert_eq!(stage.losses("items"), 0, "somebody wanted that");
    stage.outbox.replay(Duration::from_secs(3600)).await.unwrap();
    let mut group = Group::join(&stage.broker).await;
    group.until(24).await;
    // Twice in a row is once too often.
    stage.until_published().await;
    stage.outbox.replay(Duration::from_secs(3600)).await.unwrap();
    stage.until_published().await;
    let info = items.get_info().await.unwrap();
    assert_eq!(info.state.messages, 24, "repetitions are dropped");
}

/// A server sets aside what a stream may hold: by default that is nothing, so that any
/// number of streams fits.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sets_nothing_aside_by_default() {
    let nats = Nats::start().await;
    let broker = connect(&nats).await;
    broker.publish(Message::new("items.other", "t.v1", vec![b'x'; 10])).await.unwrap();
    let jetstream = jetstream(&nats).await;
    let items = jetstream.get_stream("items").await.unwrap();
    assert_eq!(items.cached_info().config.max_bytes, -1);
    let limited =
        BrokerConfig { max_stream_bytes: 4 * 1024 * 1024, ..BrokerConfig::at(nats.url()) };
    let broker = Broker::connect(&limited).await.unwrap();
    broker.publish(Message::new("others.one", "t.v1", vec![b'x'; 10])).await.unwrap();
    let others = jetstream.get_stream("others").await.unwrap();
    assert_eq!(others.cached_info().config.max_bytes, 4 * 1024 * 1024);
}

/// A stream that is full refuses, the relay waits, and what all groups have had makes
/// room: nothing is dropped that a group has not had.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_loses_nothing() {
    let nats = Nats::start().await;
    let (_folder, db) = sqlite().await;
    let config = BrokerConfig {
        max_stream_bytes: 32 * 1024,
        max_message_bytes: 8 * 1024,
        ..BrokerConfig::at(nats.url())
    };
    let broker = Broker::connect(&config).await.unwrap();
    // The group is there, and slow.
    let mut group = Group::join(&broker).await;
    let mut stage = Stage::new(db, broker, OnLoss::Replay).await;
    stage.append(60).await;
    let items = jetstream(&nats).await.get_stream("items").await.unwrap();
    eventually("the stream is full", SOON, async || {
        let bytes = items.get_info().await.unwrap().state.bytes;
        (bytes > 30 * 1024).then_some(())
    })
    .await;
    let message = Message::new("items.other", "t.v1", vec![b'x'; 4000]);
    let refused = stage.broker.publish(message).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::ResourceExhausted, "BROKER_FULL"));
    assert!(!stage.outbox.pending(1000).await.unwrap().is_empty(), "rows wait");
    group.until(240).await;
    group.check(60);
    stage.until_published().await;
    assert!(stage.outbox.parked(10).await.unwrap().is_empty());
}

/// Where the last message of a topic is purged, a server of 2.9 lets its groups go on behind
/// what was stored meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_full_stream_is_emptied_reaches_its_group() {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 400;
    let nats = Nats::start().await;
    let config = BrokerConfig {
        max_stream_bytes: 16 * 1024,
        max_message_bytes: 4 * 1024,
        ..BrokerConfig::at(nats.url())
    };
    let broker = Broker::connect(&config).await.unwrap();
    let subscription = Subscription::new("group", "items.added");
    let mut deliveries = broker.subscribe(subscription).await.unwrap();
    let publishing = try_join_all((0..PUBLISHERS).map(async |_| {
        for _ in 0..EACH {
            let message = Message::new("items.added", "t.v1", vec![b'x'; 200]);
            eventually("room", SOON, async || match broker.publish(message.clone()).await {
                Ok(()) => Some(()),
                Err(error) => {
                    assert_eq!(error.reason(), "BROKER_FULL");
                    None
                }
            })
            .await;
        }
        Ok::<(), chassis_core::Error>(())
    }));
    let handling = async {
        let mut seen = BTreeSet::new();
        while seen.len() < PUBLISHERS * EACH {
            let next = tokio::time::timeout(SOON, deliveries.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{} came", seen.len()));
            let delivery = next.unwrap().expect("the broker is open");
            seen.insert(delivery.message.id.clone());
            delivery.ack().await.unwrap();
        }
    };
    tokio::join!(publishing, handling).0.unwrap();
}

/// What is acknowledged while the server is asked is newer than its answer, and no loss.
#[tokio::test(flavor = "multi_thread")]
async fn looking_while_others_publish_finds_no_loss() {
    let nats = Nats::start().await;
    let broker = Broker::connect(&BrokerConfig::at(nats.url())).await.unwrap();
    let note = || Message::new("items.added", "t.v1", b"x".to_vec());
    broker.publish(note()).await.unwrap();
    let tails = broker.tails().unwrap();
    let watch = tails.ledger().watch();
    let looking = async {
        for _ in 0..300 {
            tails.look().await.unwrap();
            assert!(watch.lost().is_empty());
        }
    };
    let publishing = async {
        loop {
            broker.publish(note()).await.unwrap();
        }
    };
    tokio::select! {
        () = looking => {}
        () = publishing => {}
    }
}

/// Three processes see the same loss at the same time: one publishes again what is lost, the
/// others wait for it, and each key keeps its order.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_lost_under_three_relays_is_replayed_once() {
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("losses").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let mut stage = Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await;
    let others = [
        Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await,
        Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await,
    ];
    eventually("all relays hold a share", SOON, async || {
        let sql = "SELECT COUNT(DISTINCT owner) FROM chassis_outbox_lease WHERE owner <> ''";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap() == 3).then_some(())
    })
    .await;
    stage.append(10).await;
    stage.until_published().await;
    let mut group = Group::join(&stage.broker).await;
    group.until(20).await;
    lose_the_tail(&nats).await;
    stage.append(5).await;
    group.until(60).await;
    group.check(15);
    let found = |stage: &Stage<sqlx::Postgres>| {
        let losses = others.iter().map(|other| other.losses("items")).sum::<u64>();
        losses + stage.losses("items")
    };
    assert_eq!(found(&stage), 1, "one relay replays");
    eventually("the loss is healed", SOON, async || {
        let sql = "SELECT COUNT(*) FROM chassis_outbox_loss";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap() == 0).then_some(())
    })
    .await;
    stage.append(1).await;
    group.until(64).await;
    group.check(16);
    assert_eq!(found(&stage), 1);
    for stage in others.into_iter().chain([stage]) {
        stage.relay.stop(SOON).await;
        stage.broker.close().await;
    }
}

/// From PostgreSQL, with the server really gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_gone_for_minutes_costs_nothing() {
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("outage").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let broker = connect(&nats).await;
    outage_scenarios::a_broker_gone_for_minutes_costs_nothing(
        db,
        broker,
        50,
        async |_| nats.stop(),
        async |_| nats.restart().await,
    )
    .await;
}

/// PostgreSQL answers nothing, and refuses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_postgres_loses_nothing() {
    let nats = Nats::start().await;
    let postgres = Postgres::shared().await;
    let url = postgres.database("freeze").await;
    let proxy = FaultProxy::start(postgres.address()).await;
    let through = url.replace(postgres.address(), &proxy.address().to_string());
    let config = freeze_scenarios::hasty(through);
    let db = Db::<sqlx::Postgres>::connect(&config).await.unwrap();
    let look = Db::connect(&DatabaseConfig::url(url)).await.unwrap();
    freeze_scenarios::a_database_that_stands_still_loses_nothing(
        db,
        look,
        connect(&nats).await,
        async || {
            proxy.silence(Direction::ToServer);
            proxy.silence(Direction::ToClient);
        },
        async || proxy.heal(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_a_handler_is_survived() {
    let nats = Nats::start().await;
    let broker = connect(&nats).await;
    outage_scenarios::a_broker_that_dies_under_a_handler_is_survived(
        broker,
        async || nats.stop(),
        async || nats.restart().await,
    )
    .await;
}

macro_rules! faults_on_jetstream {
    ($($name:ident,)*) => { $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let nats = Nats::start().await;
            let config = BrokerConfig {
                duplicate_window: Duration::from_millis(100),
                ..BrokerConfig::at(nats.url())
            };
            message_faults::$name(Broker::connect(&config).await.unwrap()).await;
        })* }
}

faults_on_jetstream! {
    three_times_shuffled,
    again_after_the_window,
    paused_past_its_ack_wait,
    poison_of_each_kind,
    a_row_that_is_too_large_is_parked,
}
