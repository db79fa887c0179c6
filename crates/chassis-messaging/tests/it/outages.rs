//! The embedded broker gone for long, its process killed with messages in hand, and a SQLite
//! file that somebody holds locked.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use chassis_data::{DatabaseConfig, Db};
use chassis_messaging::{Broker, BrokerConfig};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use crate::freeze_scenarios::{a_database_that_stands_still_loses_nothing, hasty};
use crate::loss_scenarios::sqlite;
use crate::outage_scenarios::{
    a_broker_gone_for_minutes_costs_nothing, hands, once_and_in_order, one_in_hand,
};
use crate::world::{Greeting, World, note};

async fn open(folder: &Path) -> Broker {
    let url = format!("embedded:{}", folder.display());
    Broker::connect(&BrokerConfig::at(url)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_broker_gone_for_minutes_costs_nothing() {
    let (_folder, db) = sqlite().await;
    let broker = Broker::temporary().await.unwrap();
    a_broker_gone_for_minutes_costs_nothing(
        db,
        broker,
        300,
        async |switch| switch.away(true),
        async |switch| switch.away(false),
    )
    .await;
}

/// The process dies with one message in hand and others fetched; the next one has all of
/// them, once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_broker_that_dies_with_messages_in_hand_has_them_again() {
    let folder = TempDir::new().unwrap();
    let mut world = World::with_broker(open(folder.path()).await).await;
    for number in 0..5 {
        for key in 0..4 {
            world.publish(&Greeting::new(&format!("key-{key}"), number)).await;
        }
    }
    let (_gate, running) = one_in_hand(&world).await;
    running.die().await;
    world.broker.close().await;
    assert_eq!(world.effects().await, []);
    world.broker = open(folder.path()).await;
    let running = world.start(world.consumer().with_config(hands()).on::<Greeting>(note)).await;
    let effects = world.until_effects(20).await;
    once_and_in_order(&effects, 4, 5);
    running.stop(Duration::from_secs(5)).await.unwrap();
    world.broker.close().await;
}

/// Another process holds the lock of the file: nobody can write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_somebody_holds_locked_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("service.db").display());
    let db: Db<sqlx::Sqlite> = Db::connect(&hasty(url.clone())).await.unwrap();
    let look = Db::connect(&DatabaseConfig::url(url.clone())).await.unwrap();
    let mut lock = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("pragma busy_timeout = 20000").execute(&mut lock).await.unwrap();
    let lock = tokio::sync::Mutex::new(lock);
    a_database_that_stands_still_loses_nothing(
        db,
        look,
        Broker::temporary().await.unwrap(),
        async || {
            let mut lock = lock.lock().await;
            sqlx::raw_sql("begin immediate").execute(&mut *lock).await.unwrap();
        },
        async || {
            sqlx::raw_sql("rollback").execute(&mut *lock.lock().await).await.unwrap();
        },
    )
    .await;
}
