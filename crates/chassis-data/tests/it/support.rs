//! A database in a folder that goes away with the test.

use std::time::Duration;

use chassis_data::{Backend, DatabaseConfig, Db, params};
use tempfile::TempDir;

/// The longest that any wait in these tests may take.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn config(folder: &TempDir) -> DatabaseConfig {
    DatabaseConfig::url(format!("sqlite://{}", folder.path().join("test.db").display()))
}

/// An empty table `item (id text primary key, amount bigint)`.
pub(crate) async fn items<B: Backend>() -> (TempDir, Db<B>) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::<B>::connect(&config(&folder)).await.unwrap();
    db.execute("create table item (id text primary key, amount bigint)", params![]).await.unwrap();
    (folder, db)
}

pub(crate) async fn count<B: Backend>(db: &Db<B>) -> i64 {
    let row = db.fetch_optional("select count(*) from item", params![]).await.unwrap().unwrap();
    row.int(0).unwrap()
}
