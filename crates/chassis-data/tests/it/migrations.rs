//! Sets of migrations on SQLite.

use chassis_core::Code;
use chassis_data::{Db, Migrations, params};
use sqlx::Any;

use crate::support::{config, items};

fn first() -> Migrations {
    Migrations::new("things").step(
        1,
        "things",
        "create table thing (id {identity}, payload {blob}); create index thing_payload on thing (payload)",
    )
}

#[tokio::test]
async fn a_set_runs_once_and_grows() {
    let (_folder, db) = items::<Any>().await;
    db.migrate(&first()).await.unwrap();
    db.migrate(&first()).await.unwrap();
    let grown = first().step(2, "notes", "alter table thing add column note text");
    db.migrate(&grown).await.unwrap();
    db.execute("insert into thing (note) values ('a')", params![]).await.unwrap();
    let row = db.fetch_optional("select id, note from thing", params![]).await.unwrap().unwrap();
    assert_eq!((row.int(0).unwrap(), row.text(1).unwrap()), (1, "a"));
    // An older program starts on the newer database.
    db.migrate(&first()).await.unwrap();
}

#[tokio::test]
async fn sets_do_not_know_each_other() {
    let (_folder, db) = items::<Any>().await;
    db.migrate(&first()).await.unwrap();
    let other = Migrations::new("others").step(1, "others", "create table other (id bigint)");
    db.migrate(&other).await.unwrap();
    for table in ["chassis_migrations_things", "chassis_migrations_others"] {
        let sql = "select count(*) from sqlite_master where name = $1";
        let row = db.fetch_optional(sql, params![table]).await.unwrap().unwrap();
        assert_eq!(row.int(0).unwrap(), 1, "{table}");
    }
}

#[tokio::test]
async fn a_changed_step_is_refused_and_named() {
    let (_folder, db) = items::<Any>().await;
    db.migrate(&first()).await.unwrap();
    let changed = Migrations::new("things").step(1, "things", "create table thing (id bigint)");
    let error = db.migrate(&changed).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, "MIGRATION_CHANGED"));
    assert!(error.message().starts_with("step 1 of the migrations \"things\" was changed"));
}

#[tokio::test]
async fn a_step_takes_effect_as_a_whole_or_not_at_all() {
    let (_folder, db) = items::<Any>().await;
    let broken = first().step(2, "broken", "create table half (id bigint); create tabel oops");
    let error = db.migrate(&broken).await.unwrap_err();
    assert_eq!(error.reason(), "MIGRATION_FAILED");
    assert!(error.chain().contains("tabel"), "{}", error.chain());
    let mended = first().step(2, "mended", "create table half (id bigint)");
    db.migrate(&mended).await.unwrap();
}

#[tokio::test]
async fn many_migrate_one_file_at_once() {
    let (folder, _db) = items::<Any>().await;
    let migrators = (0..8).map(|_| {
        let config = config(&folder);
        tokio::spawn(async move {
            let db: Db = Db::connect(&config).await?;
            db.migrate(&first()).await
        })
    });
    for migrator in futures_util::future::join_all(migrators).await {
        migrator.unwrap().unwrap();
    }
}
