//! Commit, roll back, and run again after a conflict.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chassis_core::{BoxFuture, Code, Error, Metrics, Result};
use chassis_data::{Backend, DatabaseConfig, Db, Tx, error, params};
use chassis_test::eventually;
use sqlx::{Any, Connection, Sqlite, SqliteConnection};

use crate::support::{BOUND, config, count, items};

#[tokio::test]
async fn hooks_run_after_the_commit_and_only_then() {
    let (_folder, db) = items::<Any>().await;
    let runs = Arc::new(AtomicU32::new(0));
    let hook = |runs: &Arc<AtomicU32>| {
        let runs = Arc::clone(runs);
        move || {
            runs.fetch_add(1, Ordering::SeqCst);
        }
    };

    let mut tx = db.begin().await.unwrap();
    tx.on_commit(hook(&runs));
    tx.rollback().await;
    let mut tx = db.begin().await.unwrap();
    tx.on_commit(hook(&runs));
    drop(tx);
    assert_eq!(runs.load(Ordering::SeqCst), 0);

    let mut tx = db.begin().await.unwrap();
    tx.on_commit(hook(&runs));
    tx.on_commit(|| panic!("a hook that panics"));
    tx.on_commit(hook(&runs));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    tx.commit().await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// Many tasks, two handles to one file, read-then-write: the sum shows lost updates.
async fn concurrent_writers<B: Backend>() {
    let (folder, one) = items::<B>().await;
    let two = Db::<B>::connect(&config(&folder)).await.unwrap();
    one.execute("insert into item values ('sum', 0)", params![]).await.unwrap();
    let writers = (0..100).map(|number| {
        let db = if number % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(async move { db.transaction(async |tx| add_one(tx).await).await })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.unwrap().unwrap();
    }
    let row = one.fetch_optional("select amount from item", params![]).await.unwrap().unwrap();
    assert_eq!(row.int(0).unwrap(), 100);
}

async fn add_one<B: Backend>(tx: &mut Tx<B>) -> Result<()> {
    let row = tx.fetch_optional("select amount from item where id = 'sum'", params![]).await?;
    let amount = row.ok_or_else(|| Error::not_found("NO_SUM", "no sum"))?.int(0)?;
    tx.execute("update item set amount = $1 where id = 'sum'", params![amount + 1]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_all_succeed_on_sqlite() {
    concurrent_writers::<Sqlite>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_all_succeed_on_any() {
    concurrent_writers::<Any>().await;
}

#[tokio::test]
async fn a_conflict_runs_the_work_again_from_the_start() {
    let (_folder, db) = items::<Any>().await;
    let runs = AtomicU32::new(0);
    let result = db
        .transaction(async |tx| {
            tx.execute("insert into item (id) values ('a')", params![]).await?;
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(Error::aborted(error::SERIALIZATION_FAILURE, "conflict")),
                run => Ok(run),
            }
        })
        .await;
    assert_eq!(result.unwrap(), 2);
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn other_failures_roll_back_and_do_not_run_again() {
    let (_folder, db) = items::<Any>().await;
    let runs = AtomicU32::new(0);
    let result = db
        .transaction(async |tx| {
            runs.fetch_add(1, Ordering::SeqCst);
            tx.execute("insert into item (id) values ('a')", params![]).await?;
            Err::<(), _>(Error::not_found("ITEM_NOT_FOUND", "no such item"))
        })
        .await;
    assert_eq!(result.unwrap_err().reason(), "ITEM_NOT_FOUND");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn a_file_that_another_process_locks_is_tried_again() {
    let (folder, db) = items::<Any>().await;
    db.close().await;
    let busy = Duration::from_millis(200);
    let impatient = DatabaseConfig { acquire_timeout: busy, ..config(&folder) };
    let db: Db = Db::connect(&impatient).await.unwrap();
    let metrics = Metrics::default();
    db.bind_metrics(&metrics, "t");

    let mut other = SqliteConnection::connect(config(&folder).url.expose()).await.unwrap();
    let lock = other.begin_with("begin immediate").await.unwrap();
    let writer = tokio::spawn(async move {
        db.transaction(async |tx| tx.execute("insert into item (id) values ('a')", params![]).await)
            .await
    });
    eventually("a second run", BOUND, async || {
        metrics.encode().contains("db_client_transaction_retries_total{pool=\"t\"} 1").then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    assert_eq!(writer.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_failed_statement_breaks_the_transaction_as_on_postgresql() {
    let (_folder, db) = items::<Any>().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    let twice = tx.execute("insert into item (id) values ('a')", params![]).await.unwrap_err();
    assert_eq!((twice.code(), twice.reason()), (Code::AlreadyExists, error::UNIQUE_VIOLATION));
    let after = tx.execute("insert into item (id) values ('b')", params![]).await.unwrap_err();
    assert_eq!(after.code(), Code::Internal);
    assert_eq!(tx.commit().await.unwrap_err().code(), Code::Internal);
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let (_folder, db) = items::<Any>().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    assert_eq!(count(&db).await, 0);
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn sqlx_works_on_the_connection_of_a_transaction() {
    let (_folder, db) = items::<Sqlite>().await;
    let mut tx = db.begin().await.unwrap();
    sqlx::query("insert into item (id) values ('a')").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn the_pool_is_shown() {
    let (_folder, db) = items::<Any>().await;
    let metrics = Metrics::default();
    db.bind_metrics(&metrics, "items");
    let tx = db.begin().await.unwrap();
    // At least this one: a connection that is on its way back counts as used too.
    let text = metrics.encode();
    let used = r#"db_client_connection_count{pool="items",state="used"}"#;
    assert!(text.contains(used) && !text.contains(&format!("{used} 0")), "{text}");
    tx.rollback().await;
    chassis_core::Probe::check(&db.probe()).await.unwrap();
    db.close().await;
    let closed = chassis_core::Probe::check(&db.probe()).await.unwrap_err();
    assert_eq!(closed.code(), Code::Unavailable);
}

/// A handler as a framework stores it: any async function of a state and a transaction.
trait Handler<'a, B: Backend>: Send + Sync {
    fn call(&self, state: u32, tx: &'a mut Tx<B>) -> impl Future<Output = Result<()>> + Send;
}

impl<'a, B, F, Fut> Handler<'a, B> for F
where
    B: Backend,
    F: Fn(u32, &'a mut Tx<B>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<()>> + Send,
{
    fn call(&self, state: u32, tx: &'a mut Tx<B>) -> impl Future<Output = Result<()>> + Send {
        self(state, tx)
    }
}

async fn insert(state: u32, tx: &mut Tx) -> Result<()> {
    let id = state.to_string();
    tx.execute("insert into item (id) values ($1)", params![id]).await.map(drop)
}

fn boxed<B: Backend, H>(db: Db<B>, handler: H) -> BoxFuture<'static, Result<()>>
where
    H: for<'a> Handler<'a, B> + 'static,
{
    let handler = Arc::new(handler);
    Box::pin(async move {
        db.transaction_boxed(move |tx| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.call(7, tx).await })
        })
        .await
    })
}

#[tokio::test]
async fn the_work_may_be_generic_and_its_future_boxed() {
    let (_folder, db) = items::<Any>().await;
    tokio::spawn(boxed(db.clone(), insert)).await.unwrap().unwrap();
    assert_eq!(count(&db).await, 1);
}
