//! A begin that is dropped in flight: the case that sqlx 0.9 gets wrong by itself.

use std::{future::Future, pin::pin, task::Poll};

use chassis_data::{Backend, DatabaseConfig, params};
use chassis_test::{eventually, servers::Postgres};
use futures_util::future::{join_all, poll_fn};
use sqlx::{Any, Postgres as Pg};

use crate::support::{BOUND, count, items_at, number};

/// Polls at most this often, with other tasks in between, then drops.
async fn give_up_after<F: Future>(polls: usize, future: F) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

const IN_TRANSACTION: &str = "select count(*) from pg_stat_activity where state like \
     'idle in transaction%' and datname = current_database()";

async fn aborted_begins<B: Backend>(name: &str) {
    let url = Postgres::shared().await.database(name).await;
    let config = DatabaseConfig { max_connections: 4, ..DatabaseConfig::url(url) };
    let db = items_at::<B>(config).await;
    // Checked after each batch: a later begin that succeeds would clean up an earlier leak.
    for polls in (0..12).cycle().take(60) {
        for _ in 0..25 {
            give_up_after(polls, db.begin()).await;
        }
        eventually("no connection is idle in a transaction", BOUND, async || {
            (number(&db, IN_TRANSACTION).await == 0).then_some(())
        })
        .await;
    }
    // A statement that fails ends no stranger's transaction, and all connections work.
    for round in 0..40 {
        let failed = db.execute("select nothing", params![]).await.unwrap_err();
        assert!(!failed.chain().contains("25P02"), "{}", failed.chain());
        let insert = "insert into item (id) values ($1)";
        db.execute(insert, params![round.to_string()]).await.unwrap();
    }
    let counts = join_all((0..8).map(|_| count(&db))).await;
    assert_eq!(counts, [40; 8]);
}

#[tokio::test]
async fn aborted_begins_leave_no_transaction_on_postgres() {
    aborted_begins::<Pg>("aborted_pg").await;
}

#[tokio::test]
async fn aborted_begins_leave_no_transaction_on_any() {
    aborted_begins::<Any>("aborted_any").await;
}

#[tokio::test]
async fn whole_transactions_may_be_dropped_anywhere() {
    let url = Postgres::shared().await.database("dropped").await;
    let config = DatabaseConfig { max_connections: 4, ..DatabaseConfig::url(url) };
    let db = items_at::<Any>(config).await;
    for round in 0..400 {
        let inserted = db.transaction(async |tx| {
            for part in ["a", "b"] {
                let id = format!("{round}-{part}");
                tx.execute("insert into item (id) values ($1)", params![id]).await?;
            }
            Ok(())
        });
        give_up_after(if round % 10 == 9 { usize::MAX } else { round % 40 }, inserted).await;
    }
    eventually("no connection is idle in a transaction", BOUND, async || {
        (number(&db, IN_TRANSACTION).await == 0).then_some(())
    })
    .await;
    let rows = count(&db).await;
    assert!(rows % 2 == 0 && rows >= 80, "{rows}");
}
