//! Opening a SQLite file, and the errors that a newcomer sees.

use chassis_core::Code;
use chassis_data::{DatabaseConfig, Db, Dialect, create_database_if_missing, params};
use sqlx::{Any, Postgres, Sqlite};

use crate::support::{config, items};

#[tokio::test]
async fn the_folder_and_the_file_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/er/a.db");
    let url = format!("sqlite://{}", file.display());
    assert!(!create_database_if_missing(&url).await.unwrap());
    let db: Db = Db::connect(&DatabaseConfig::url(url)).await.unwrap();
    assert_eq!(db.dialect(), Dialect::Sqlite);
    assert!(file.exists());
}

#[tokio::test]
async fn commits_survive_a_power_cut_and_references_hold() {
    let (_folder, db) = items::<Any>().await;
    for (pragma, expected) in [("pragma synchronous", 2), ("pragma foreign_keys", 1)] {
        let row = db.fetch_optional(sqlx::AssertSqlSafe(pragma), params![]).await.unwrap().unwrap();
        assert_eq!(row.int(0).unwrap(), expected, "{pragma}");
    }
    let row = db.fetch_optional("pragma journal_mode", params![]).await.unwrap().unwrap();
    assert_eq!(row.text(0).unwrap(), "wal");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("occupied"), "").unwrap();
    let path = folder.path().join("occupied/a.db");
    let url = format!("sqlite://{}", path.display());
    let error = Db::<Any>::connect(&DatabaseConfig::url(url)).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), "DATABASE_UNWRITABLE");
    assert!(error.message().contains("occupied"), "{error}");
    assert!(error.message().contains("DATABASE_URL"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.db"), "not a database, but long enough ".repeat(40))
        .unwrap();
    let error = Db::<Any>::connect(&config(&folder)).await.map(drop).unwrap_err();
    assert!(error.message().contains("test.db"), "{error}");
}

#[tokio::test]
async fn a_missing_file_is_not_made_where_the_url_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rw", folder.path().join("a.db").display());
    let error = Db::<Sqlite>::connect(&DatabaseConfig::url(url)).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), "DATABASE_UNWRITABLE");
}

#[tokio::test]
async fn a_read_only_file_is_read() {
    let (folder, db) = items::<Any>().await;
    db.execute("insert into item (id) values ('a')", params![]).await.unwrap();
    let url = format!("{}?mode=ro", config(&folder).url.expose());
    let reader: Db = Db::connect(&DatabaseConfig::url(url)).await.unwrap();
    assert_eq!(crate::support::count(&reader).await, 1);
    let error = reader.execute("delete from item", params![]).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn the_url_must_fit_the_backend() {
    let folder = tempfile::tempdir().unwrap();
    let error = Db::<Postgres>::connect(&config(&folder)).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = Db::<Any>::connect(&DatabaseConfig::default()).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
