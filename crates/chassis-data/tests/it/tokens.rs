//! Tokens in SQLite keep the contract of the store.

use std::time::Duration;

use chassis_data::{Backend, Db, DbTokenStore, params};
use chassis_resilience::rate_limit::{
    RateLimit,
    shared::{Grant, TokenStore, conformance},
};

use crate::support::config;

async fn keeps_the_contract<B: Backend>() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::<B>::connect(&config(&folder)).await.unwrap();
    db.migrate(&DbTokenStore::<B>::migrations()).await.unwrap();
    conformance::run_all(DbTokenStore::new(&db)).await.unwrap();
}

#[tokio::test]
async fn the_contract_holds_on_sqlite() {
    keeps_the_contract::<sqlx::Sqlite>().await;
}

#[tokio::test]
async fn the_contract_holds_on_any() {
    keeps_the_contract::<sqlx::Any>().await;
}

#[tokio::test]
async fn idle_keys_are_removed_and_absurd_limits_answered() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::<sqlx::Sqlite>::connect(&config(&folder)).await.unwrap();
    db.migrate(&DbTokenStore::<sqlx::Sqlite>::migrations()).await.unwrap();
    let insert = "insert into chassis_tokens (key, asked, given, waits, arrival)
        values ($1, 0, 0, 0, 1)";
    for key in 0..10_i64 {
        db.execute(insert, params![key.to_string()]).await.unwrap();
    }
    let store = DbTokenStore::new(&db);
    let endless = RateLimit::new(1, Duration::MAX).burst(u32::MAX);
    let limits = [endless, RateLimit::per_second(u32::MAX), RateLimit::new(0, Duration::ZERO)];
    for (key, limit) in limits.into_iter().enumerate() {
        let key = key.to_string() + "-limit";
        let grant = store.take(&key, limit, u32::MAX).await.unwrap();
        assert!(matches!(grant, Grant::Tokens(_)), "{limit:?}: {grant:?}");
        store.take(&key, limit, u32::MAX).await.unwrap();
    }
    let left = db.fetch_optional("select count(*) from chassis_tokens", params![]).await;
    assert_eq!(left.unwrap().unwrap().int(0).unwrap(), 3, "the ten idle ones are gone");
}
