//! A server that restarts, and a network that loses the answer to a commit.

use chassis_core::Code;
use chassis_data::{DatabaseConfig, Db, error, params};
use chassis_test::{Direction, FaultProxy, eventually, servers::Postgres};
use futures_util::future::join_all;

use crate::support::{BOUND, count, items_at};

#[tokio::test]
async fn transactions_begin_at_once_after_a_restart_of_the_server() {
    let postgres = Postgres::start().await;
    let db: Db = items_at(DatabaseConfig::url(postgres.database("restart").await)).await;
    // Fill the pool, so that every connection in it is dead afterwards.
    let open = join_all((0..10).map(|_| db.begin())).await;
    join_all(open.into_iter().map(|tx| tx.unwrap().rollback())).await;
    postgres.restart().await;
    let insert = |id: i32| {
        let db = db.clone();
        async move {
            let id = id.to_string();
            db.transaction(async |tx| {
                tx.execute("insert into item (id) values ($1)", params![&id]).await
            })
            .await
        }
    };
    for inserted in join_all((0..10).map(insert)).await {
        assert_eq!(inserted.unwrap(), 1);
    }
    assert_eq!(count(&db).await, 10);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_reported_as_unknown() {
    let postgres = Postgres::shared().await;
    let url = postgres.database("unknown").await;
    let direct: Db = items_at(DatabaseConfig::url(&url)).await;
    let proxy = FaultProxy::start(postgres.address()).await;
    let through = url.replace(postgres.address(), &proxy.address().to_string());
    let db: Db = Db::connect(&DatabaseConfig::url(through)).await.unwrap();

    let mut tx = db.begin().await.unwrap();
    tx.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    proxy.silence(Direction::ToClient);
    let commit = tokio::spawn(tx.commit());
    eventually("the server has committed", BOUND, async || {
        (count(&direct).await == 1).then_some(())
    })
    .await;
    proxy.cut();
    let lost = commit.await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.reason()), (Code::Unknown, error::COMMIT_UNKNOWN));
    proxy.heal();
    assert_eq!(count(&db).await, 1);
}
