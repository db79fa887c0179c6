//! Several processes that start at once, as after a deployment.

use chassis_data::{DatabaseConfig, Db, Migrations, params};
use chassis_test::servers::Postgres;
use futures_util::future::join_all;

use crate::support::number;

fn things() -> Migrations {
    Migrations::new("things")
        .step(1, "things", "create table thing (id {identity}, payload {blob})")
        .step(2, "rows", "insert into thing (payload) select null from generate_series(1, 1000)")
        .step(3, "notes", "alter table thing add column note text; create table other (id bigint)")
}

#[tokio::test]
async fn two_migrators_at_once_run_each_step_once() {
    let url = Postgres::shared().await.database("migrators").await;
    let migrators = (0..6).map(|_| {
        let config = DatabaseConfig::url(&url);
        tokio::spawn(async move {
            let db: Db = Db::connect(&config).await?;
            db.migrate(&things()).await?;
            Ok::<_, chassis_core::Error>(db)
        })
    });
    for migrated in join_all(migrators).await {
        let db = migrated.unwrap().unwrap();
        assert_eq!(number(&db, "select count(*) from thing").await, 1000);
        db.close().await;
    }
}

#[tokio::test]
async fn a_changed_step_is_refused_and_a_failed_one_leaves_nothing() {
    let url = Postgres::shared().await.database("changed").await;
    let db: Db = Db::connect(&DatabaseConfig::url(url)).await.unwrap();
    db.migrate(&things()).await.unwrap();
    let changed = Migrations::new("things").step(1, "things", "create table thing (id bigint)");
    assert_eq!(db.migrate(&changed).await.unwrap_err().reason(), "MIGRATION_CHANGED");
    let broken = things().step(4, "broken", "create table half (id bigint); create tabel oops");
    assert_eq!(db.migrate(&broken).await.unwrap_err().reason(), "MIGRATION_FAILED");
    // The lock is free again, and nothing is left of the half.
    db.migrate(&things().step(4, "mended", "create table half (id bigint)")).await.unwrap();
    db.execute("insert into half values (1)", params![]).await.unwrap();
}
