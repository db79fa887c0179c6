//! A fresh database on the server that all tests share.

use std::time::Duration;

use chassis_data::{Backend, DatabaseConfig, Db, params};
use chassis_test::servers::Postgres;

/// The longest that any wait in these tests may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// An empty table `item (id text primary key, amount bigint)`.
pub(crate) async fn items<B: Backend>(name: &str) -> Db<B> {
    let url = Postgres::shared().await.database(name).await;
    items_at(DatabaseConfig::url(url)).await
}

pub(crate) async fn items_at<B: Backend>(config: DatabaseConfig) -> Db<B> {
    let db = Db::<B>::connect(&config).await.unwrap();
    let table = "create table if not exists item (id text primary key, amount bigint)";
    db.execute(table, params![]).await.unwrap();
    db
}

pub(crate) async fn number<B: Backend>(db: &Db<B>, sql: &'static str) -> i64 {
    db.fetch_optional(sql, params![]).await.unwrap().unwrap().int(0).unwrap()
}

pub(crate) async fn count<B: Backend>(db: &Db<B>) -> i64 {
    number(db, "select count(*) from item").await
}
