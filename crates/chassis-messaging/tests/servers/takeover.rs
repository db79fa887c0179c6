//! A relay dies together with the end of a stream while the server is at its mark.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use chassis_data::{DatabaseConfig, Db, params};
use chassis_messaging::outbox::{OnLoss, Outbox, OutboxConfig};
use chassis_test::eventually;
use chassis_test::servers::{Nats, Postgres};

use crate::outbox_pg::outbox_pg_scenarios::at_locks;
use crate::outbox_pg::outbox_scenarios::{ItemAdded, Running, append, quick};
use crate::streams::loss_scenarios::{Group, Stage};
use crate::streams::{both_hold_a_share, connect, keep};

const SOON: Duration = Duration::from_secs(40);
const KEYS: u32 = 16;

/// Whoever takes the partition over has half of what the mark names in its hands when that
/// comes, and would go on with what comes after the other half, which is lost. What the mark
/// says of the end of the stream must be known to it before it publishes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_mark_names_is_not_overtaken() {
    let nats = Nats::start().await;
    let url = Postgres::shared().await.database("losses").await;
    let db = Db::<sqlx::Postgres>::connect(&DatabaseConfig::url(url)).await.unwrap();
    let dies = Stage::new(db.clone(), connect(&nats).await, OnLoss::Replay).await;
    let broker = connect(&nats).await;
    let outbox = Outbox::new(&db, "tester").with_config(OutboxConfig {
        window: 2,
        max_in_flight: 2,
        ..quick()
    });
    let heir = Running::start(&outbox, &broker).await;
    both_hold_a_share(&db).await;
    for number in 0..6 {
        for key in 0..KEYS {
            append(&db, &outbox, &format!("key-{key}"), number).await;
        }
    }
    dies.until_published().await;
    dies.until_checkpoint().await;
    dies.stop_checkpoints().await;
    // The name of a relay begins with the time.
    let sql = "SELECT o.msg_key, l.part, l.owner FROM chassis_outbox o
        JOIN chassis_outbox_lease l ON l.part = o.part
        WHERE l.owner = (SELECT MIN(owner) FROM chassis_outbox_relay) ORDER BY 1 LIMIT 1";
    let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
    let (key, part, dead) = (row.text(0).unwrap(), row.int(1).unwrap(), row.text(2).unwrap());

    // The end of the stream is written after the rows of a mark; there it stops.
    let mut holder = db.begin().await.unwrap();
    let end = "SELECT position FROM chassis_outbox_tail WHERE slot = 120 FOR UPDATE";
    assert!(holder.fetch_optional(end, Vec::new()).await.unwrap().is_some());
    let mut tx = db.begin().await.unwrap();
    for number in 6..26 {
        let event = ItemAdded { key: key.to_owned(), number };
        outbox.append(&mut tx, &event).await.unwrap();
    }
    tx.commit().await.unwrap();
    eventually("the mark waits", SOON, async || (at_locks(&db).await == 1).then_some(())).await;
    dies.relay.die().await;
    // Some of the last twenty, and nothing of the first.
    keep(&nats, 9, 10).await;
    eventually("the partition is taken over, or passed by", SOON, async || {
        let sql = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN part = $2 THEN 1 ELSE 0 END), 0)
            FROM chassis_outbox_lease WHERE owner <> $1";
        let row = db.fetch_optional(sql, params![dead, part]).await.unwrap().unwrap();
        let (taken, this) = (row.int(0).unwrap(), row.int(1).unwrap() == 1);
        (if this { at_locks(&db).await == 2 } else { taken == 15 }).then_some(())
    })
    .await;
    append(&db, &outbox, key, 26).await;
    holder.rollback().await;
    let mut group = Group::join(&broker).await;
    group.until(KEYS as usize * 6 + 21).await;
    assert_eq!(group.effects[key], (0..27).collect::<Vec<_>>());
    heir.stop(SOON).await;
    broker.close().await;
}
