//! Tokens in PostgreSQL keep the contract of the store.

use chassis_data::{Backend, DatabaseConfig, Db, DbTokenStore};
use chassis_resilience::rate_limit::shared::conformance;
use chassis_test::servers::Postgres;

async fn keeps_the_contract<B: Backend>(name: &str) {
    let url = Postgres::shared().await.database(name).await;
    let db = Db::<B>::connect(&DatabaseConfig::url(url)).await.unwrap();
    db.migrate(&DbTokenStore::<B>::migrations()).await.unwrap();
    conformance::run_all(DbTokenStore::new(&db)).await.unwrap();
}

#[tokio::test]
async fn the_contract_holds_on_postgres() {
    keeps_the_contract::<sqlx::Postgres>("tokens").await;
}

#[tokio::test]
async fn the_contract_holds_on_any() {
    keeps_the_contract::<sqlx::Any>("tokens_any").await;
}
