//! Conflicts and failures as PostgreSQL reports them.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use chassis_core::{Code, Result};
use chassis_data::{Backend, DatabaseConfig, Db, Tx, error, params};
use chassis_test::servers::Postgres;
use sqlx::{Any, Postgres as Pg};
use tokio::sync::Barrier;

use crate::support::{count, items, items_at, number};

/// Both read before either writes, so one of them must lose and run again.
async fn serialisation_failure<B: Backend>(name: &str) {
    let db = items::<B>(name).await;
    db.execute("insert into item values ('sum', 0)", params![]).await.unwrap();
    let both_have_read = Barrier::new(2);
    let runs = AtomicU32::new(0);
    let add_one = || async {
        let first = AtomicU32::new(0);
        db.transaction(async |tx| {
            runs.fetch_add(1, Ordering::SeqCst);
            tx.execute("set transaction isolation level serializable", params![]).await?;
            let row = tx.fetch_optional("select amount from item", params![]).await?.unwrap();
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                both_have_read.wait().await;
            }
            let amount = row.int(0)? + 1;
            tx.execute("update item set amount = $1", params![amount]).await
        })
        .await
    };
    let (one, two) = tokio::join!(add_one(), add_one());
    one.unwrap();
    two.unwrap();
    assert_eq!(number(&db, "select amount from item").await, 2);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_serialisation_failure_runs_again_on_postgres() {
    serialisation_failure::<Pg>("serial_pg").await;
}

#[tokio::test]
async fn a_serialisation_failure_runs_again_on_any() {
    serialisation_failure::<Any>("serial_any").await;
}

#[tokio::test]
async fn a_deadlock_runs_again() {
    let db = items::<Any>("deadlock").await;
    db.execute("insert into item values ('a', 0), ('b', 0)", params![]).await.unwrap();
    let both_hold_one = Barrier::new(2);
    let update = |first: &'static str, second: &'static str| {
        let (db, both_hold_one) = (&db, &both_hold_one);
        async move {
            let runs = AtomicU32::new(0);
            db.transaction(async |tx| {
                bump(tx, first).await?;
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    both_hold_one.wait().await;
                }
                bump(tx, second).await
            })
            .await
        }
    };
    let (one, two) = tokio::join!(update("a", "b"), update("b", "a"));
    one.unwrap();
    two.unwrap();
    assert_eq!(number(&db, "select cast(sum(amount) as bigint) from item").await, 4);
}

async fn bump(tx: &mut Tx, id: &str) -> Result<u64> {
    tx.execute("update item set amount = amount + 1 where id = $1", params![id]).await
}

#[tokio::test]
async fn a_failure_behind_our_back_is_not_committed_as_success() {
    let db = items::<Pg>("unseen").await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    // The caller ignores a failure on the raw connection.
    sqlx::query("select nothing").execute(tx.conn()).await.unwrap_err();
    assert_eq!(tx.commit().await.unwrap_err().code(), Code::Internal);

    let mut tx = db.begin().await.unwrap();
    sqlx::query("insert into item (id) values ('b')").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn a_duplicate_breaks_the_transaction() {
    let db = items::<Any>("duplicate").await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    let twice = tx.execute("insert into item (id) values ('a')", params![]).await.unwrap_err();
    assert_eq!((twice.code(), twice.reason()), (Code::AlreadyExists, error::UNIQUE_VIOLATION));
    assert_eq!(tx.commit().await.unwrap_err().code(), Code::Internal);
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended() {
    let url = Postgres::shared().await.database("slow").await;
    let statement_timeout = Duration::from_millis(50);
    let db: Db = items_at(DatabaseConfig { statement_timeout, ..DatabaseConfig::url(url) }).await;
    let slow = db.execute("select pg_sleep(600)", params![]).await.unwrap_err();
    assert_eq!((slow.code(), slow.reason()), (Code::DeadlineExceeded, "STATEMENT_TIMEOUT"));
}

#[tokio::test]
async fn a_forgotten_transaction_is_ended_by_the_server() {
    let url = Postgres::shared().await.database("forgotten").await;
    let idle_in_transaction_timeout = Duration::from_millis(50);
    let config = DatabaseConfig { idle_in_transaction_timeout, ..DatabaseConfig::url(url) };
    let db: Db = items_at(config).await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    let alone = "select count(*) from pg_stat_activity where state like 'idle in transaction%' \
                 and datname = current_database()";
    chassis_test::eventually("the server ended it", crate::support::BOUND, async || {
        (number(&db, alone).await == 0).then_some(())
    })
    .await;
    assert!(tx.commit().await.is_err());
    assert_eq!(count(&db).await, 0);
}
