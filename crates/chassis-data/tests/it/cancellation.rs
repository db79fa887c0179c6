//! A future that is dropped anywhere leaves no transaction behind.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use chassis_data::{Backend, Db, params};
use chassis_test::eventually;
use futures_util::{FutureExt, future::poll_fn};
use sqlx::{Any, Sqlite};

use crate::support::{BOUND, count, items};

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

async fn aborted_begins<B: Backend>() {
    let (_folder, db) = items::<B>().await;
    for round in 0..500 {
        give_up_after(round % 12, db.begin()).await;
    }
    // Every connection of the pool works, one after the other and all at once.
    for id in 0..20 {
        let mut tx = db.begin().await.unwrap();
        tx.execute("insert into item (id) values ($1)", params![id.to_string()]).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(count(&db).await, 20);
    let reads = (0..10).map(|_| db.fetch_all("select id from item", params![]));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.unwrap().len(), 20);
    }
}

#[tokio::test]
async fn aborted_begins_leave_no_transaction_on_sqlite() {
    aborted_begins::<Sqlite>().await;
}

#[tokio::test]
async fn aborted_begins_leave_no_transaction_on_any() {
    aborted_begins::<Any>().await;
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_the_next_writer_starts() {
    let (_folder, db) = items::<Any>().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    drop(tx);
    let tx = db.begin().await.unwrap();
    assert_eq!(count(&db).await, 0);
    tx.rollback().await;
}

#[tokio::test]
async fn a_commit_that_began_ends_though_nobody_waits() {
    let (_folder, db) = items::<Any>().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    let hooked = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&hooked);
    tx.on_commit(move || hook.store(true, Ordering::SeqCst));

    assert!(tx.commit().now_or_never().is_none(), "the commit was not in flight");
    eventually("the hook has run", BOUND, async || hooked.load(Ordering::SeqCst).then_some(()))
        .await;
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn a_dropped_statement_cannot_be_committed_over() {
    let (_folder, db) = items::<Any>().await;
    let mut tx = db.begin().await.unwrap();
    // Many rows, so that SQLite's thread cannot have answered before the first poll returns.
    let insert = tx.execute(
        "with recursive n(x) as (select 1 union all select x + 1 from n where x < 200000)
         insert into item (id) select 'i' || x from n",
        params![],
    );
    assert!(insert.now_or_never().is_none(), "the statement was not in flight");
    let refused = tx.commit().await.unwrap_err();
    assert!(refused.chain().contains("was dropped"), "{}", refused.chain());
    assert_eq!(count(&db).await, 0);
}

#[tokio::test]
async fn whole_transactions_may_be_dropped_anywhere() {
    let (_folder, db) = items::<Any>().await;
    let mut committed = 0;
    for round in 0..200 {
        let done = AtomicBool::new(false);
        let insert = async {
            insert_twice(&db, round).await;
            done.store(true, Ordering::SeqCst);
        };
        // Every tenth runs to its end.
        give_up_after(if round % 10 == 9 { usize::MAX } else { round % 40 }, insert).await;
        committed += i64::from(done.load(Ordering::SeqCst));
    }
    // Whatever was dropped, both rows of a pair are there or none.
    let tx = db.begin().await.unwrap();
    let rows = count(&db).await;
    assert_eq!(rows % 2, 0);
    assert!(committed >= 20 && rows >= 2 * committed, "{rows} rows of {committed} commits");
    tx.rollback().await;
}

async fn insert_twice(db: &Db, round: usize) {
    let inserted = db.transaction(async |tx| {
        for part in ["a", "b"] {
            let id = format!("{round}-{part}");
            tx.execute("insert into item (id) values ($1)", params![id]).await?;
        }
        Ok(())
    });
    inserted.await.unwrap();
}
