//! What an outbox promises where several processes share a PostgreSQL server.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use chassis_core::{Component, Env, Ready, Shutdown};
use chassis_data::{Backend, Db, params};
use chassis_messaging::outbox::{Clock, Outbox, OutboxConfig};
use chassis_test::eventually;

use super::outbox_scenarios::{
    Fake, ItemAdded, Running, SOON, append, outbox, quick, states, until_states,
};

/// Rows that another process appended are published without waiting for the poll:
/// its relay tells, or its pinger where it has none.
pub(crate) async fn others_in_another_process_are_woken<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { poll: Duration::from_secs(3600), ..quick() };
    let one = outbox(&db, config.clone()).await;
    let two = Outbox::new(&db, "tester").with_config(config.clone());
    let broker = Fake::accepting();
    let relays = [Running::start(&one, &broker).await, Running::start(&two, &broker).await];
    eventually("both hold a share", SOON, async || {
        let sql = "SELECT COUNT(DISTINCT owner) FROM chassis_outbox_lease WHERE owner <> ''";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap() == 2).then_some(())
    })
    .await;
    let sql = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    eventually("both listen", SOON, async || {
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap() == 2).then_some(())
    })
    .await;
    for key in 0..32 {
        append(&db, &one, &format!("key-{key}"), 1).await;
    }
    until_states(&db, "published by both", [0, 32, 0]).await;

    let third = Outbox::new(&db, "tester").with_config(config);
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let pinger = Box::new(third.pinger()).run(Env::test("pinger"), ready, shutdown);
    let pinger = tokio::spawn(pinger);
    is_ready.await.unwrap();
    for key in 0..32 {
        append(&db, &third, &format!("key-{key}"), 2).await;
    }
    until_states(&db, "published for the third", [0, 64, 0]).await;
    trigger.shutdown(SOON);
    pinger.await.unwrap().unwrap();
    for relay in relays {
        relay.stop(SOON).await;
    }
}

/// A mark that waits for a lock stops neither reading nor publishing.
pub(crate) async fn publishing_goes_on_while_marking<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { lease: Duration::from_secs(3600), ..quick() };
    let outbox = outbox(&db, config).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    // Marks look at the leases, reads do not.
    let mut lock = db.begin().await.unwrap();
    let sql = "LOCK TABLE chassis_outbox_lease IN ACCESS EXCLUSIVE MODE";
    lock.execute(sql, Vec::new()).await.unwrap();
    for number in 0..20 {
        append(&db, &outbox, &format!("key-{}", number % 4), number / 4).await;
        eventually("published though not marked", SOON, async || {
            (broker.stored().len() > number as usize).then_some(())
        })
        .await;
    }
    assert_eq!(states(&db).await, [20, 0, 0]);
    lock.rollback().await;
    until_states(&db, "marked", [0, 20, 0]).await;
    relay.stop(SOON).await;
    assert_eq!(broker.stored().len(), 20, "none was published twice");
}

/// A relay dies while the server is at its mark. Its other partitions are taken over, and that of
/// the mark when this has ended: what it marks is not read before, and so not published twice.
pub(crate) async fn a_running_mark_keeps_its_partition<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::behind_a_gate();
    let dies = Running::start(&outbox, &broker).await;
    append(&db, &outbox, "key", 1).await;
    eventually("the publish is under way", SOON, async || {
        (broker.calls.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let mut holder = db.begin().await.unwrap();
    let row = "SELECT part FROM chassis_outbox FOR UPDATE";
    let part = holder.fetch_optional(row, Vec::new()).await.unwrap().unwrap().int(0).unwrap();
    broker.gate.add_permits(1000);
    eventually("the mark waits", SOON, async || (at_locks(&db).await == 1).then_some(())).await;
    dies.die().await;

    let sql = "SELECT owner FROM chassis_outbox_lease WHERE part = $1";
    let owner = async |part: i64| {
        let row = db.fetch_optional(sql, params![part]).await.unwrap().unwrap();
        row.text(0).unwrap().to_owned()
    };
    let dead = owner(part).await;
    let heir = Running::start(&outbox, &broker).await;
    eventually("the others are taken over", SOON, async || {
        let sql = "SELECT COUNT(*) FROM chassis_outbox_lease WHERE owner <> $1";
        let row = db.fetch_optional(sql, params![dead.clone()]).await.unwrap().unwrap();
        (row.int(0).unwrap() >= 15).then_some(())
    })
    .await;
    assert_eq!(owner(part).await, dead);
    append(&db, &outbox, "key", 2).await;
    holder.rollback().await;
    until_states(&db, "the heir goes on", [0, 2, 0]).await;
    assert_ne!(owner(part).await, dead);
    assert_eq!(broker.stored().len(), 2, "none was published twice");
    heir.stop(SOON).await;
}

/// How many wait for a lock.
pub(crate) async fn at_locks<B: Backend>(db: &Db<B>) -> i64 {
    let sql = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap().int(0).unwrap()
}

/// A transaction that cancels a delayed row and stays open keeps no other delayed row from
/// being published; rolled back, its own is published too.
pub(crate) async fn a_cancellation_that_stays_open_holds_up_one_row<B: Backend>(db: Db<B>) {
    let clock = Clock::manual(1_000_000);
    let outbox = outbox(&db, quick()).await.with_clock(clock.clone());
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let mut ids = Vec::new();
    let mut tx = db.begin().await.unwrap();
    for number in 0..5 {
        let event = ItemAdded { key: format!("key-{number}"), number };
        ids.push(outbox.append_at(&mut tx, 1_010_000, &event).await.unwrap());
    }
    tx.commit().await.unwrap();
    let mut open = db.begin().await.unwrap();
    assert!(outbox.cancel(&mut open, &ids[0]).await.unwrap());
    clock.advance(Duration::from_secs(60));
    eventually("the others are published", SOON, async || {
        (broker.stored().len() == 4).then_some(())
    })
    .await;
    assert_eq!(outbox.delayed(10).await.unwrap()[0].id, ids[0]);
    open.rollback().await;
    until_states(&db, "the last one too", [0, 5, 0]).await;
    relay.stop(SOON).await;
}

/// A million published rows: no statement of the relay walks over them, and they are
/// removed in steps.
pub(crate) async fn many_published_rows_slow_nothing<B: Backend>(db: Db<B>) {
    let clock = Clock::manual(10_000_000);
    let config = OutboxConfig {
        grace: Duration::from_secs(60),
        clean_every: Duration::from_millis(10),
        clean_batch: 50_000,
        ..quick()
    };
    let outbox = outbox(&db, config).await.with_clock(clock.clone());
    let sql = "INSERT INTO chassis_outbox
        (part, state, published_at, time, id, source, kind, topic, msg_key, content_type, headers, payload)
        SELECT n % 16, 1, 10000000, 0, CAST(n AS TEXT), '', 'item.v1', 'items', 'k', '', '{}', ''
        FROM generate_series(CAST(1 AS BIGINT), 1000000) n";
    db.execute(sql, Vec::new()).await.unwrap();
    db.execute("ANALYZE chassis_outbox", Vec::new()).await.unwrap();
    let scans = async || {
        let sql = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables
            WHERE relname = 'chassis_outbox'";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap(), row.int(1).unwrap())
    };
    let before = scans().await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    for number in 0..100 {
        append(&db, &outbox, &format!("key-{}", number % 7), number / 7).await;
    }
    eventually("all are published", SOON, async || (broker.stored().len() == 100).then_some(()))
        .await;
    let parked = outbox.parked(10).await.unwrap();
    assert!(parked.is_empty());
    // The server gathers these numbers with a delay.
    let after = eventually("the marks are in the statistics", SOON, async || {
        let after = scans().await;
        (after.1 >= before.1 + 100).then_some(after)
    })
    .await;
    assert_eq!(after.0, before.0, "no scan of the whole table");
    clock.advance(Duration::from_secs(61));
    eventually("the million is gone", 3 * SOON, async || {
        // The hundred are as old by now and go last.
        let [pending, published, parked] = states(&db).await;
        (pending == 0 && published <= 100 && parked == 0).then_some(())
    })
    .await;
    relay.stop(SOON).await;
}
