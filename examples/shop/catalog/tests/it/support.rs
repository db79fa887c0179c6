//! A service on a temporary database.

use chassis::core::{App, Env};
use chassis::data::DatabaseConfig;
use shop_catalog::{Catalog, Config};
use tempfile::TempDir;

/// A catalogue with its first products; the folder is removed with it.
pub(crate) async fn open() -> (TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.db");
    let config = Config {
        database: DatabaseConfig::url(format!("sqlite://{}?mode=rwc", file.display())),
        ..Config::default()
    };
    let app = App::new(Env::test("catalog"));
    let catalog = Catalog::connect(&app, &config).await.unwrap();
    (folder, catalog)
}
