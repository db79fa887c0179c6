//! Opening a database on a server that is late, or without the database.

use std::time::Duration;

use chassis_data::{DatabaseConfig, Db, create_database_if_missing};
use chassis_test::servers::Postgres;
use futures_util::future::join_all;
use sqlx::{Any, Postgres as Pg};

use crate::support::count;

#[tokio::test]
async fn a_server_that_comes_up_later_is_waited_for() {
    let postgres = Postgres::start().await;
    let url = postgres.database("late").await;
    postgres.stop();
    let connecting = tokio::spawn(async move {
        let db = crate::support::items_at::<Any>(DatabaseConfig::url(url)).await;
        count(&db).await
    });
    postgres.restart().await;
    assert_eq!(connecting.await.unwrap(), 0);
}

#[tokio::test]
async fn the_wait_for_a_server_is_bounded_and_named() {
    let postgres = Postgres::start().await;
    let url = postgres.url("items");
    postgres.stop();
    let connect_timeout = Duration::from_millis(300);
    let config = DatabaseConfig { connect_timeout, ..DatabaseConfig::url(url) };
    let error = Db::<Any>::connect(&config).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), "DATABASE_UNREACHABLE");
    assert!(error.message().contains("\"items\" at 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_missing_database_is_named_at_once_and_can_be_made() {
    let name = format!("not_yet_{}", std::process::id());
    let url = Postgres::shared().await.url(&name);
    let error = Db::<Pg>::connect(&DatabaseConfig::url(&url)).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), "DATABASE_MISSING");
    assert!(error.message().contains(&name), "{error}");

    let created = join_all((0..4).map(|_| create_database_if_missing(&url))).await;
    let made = created.into_iter().map(Result::unwrap).filter(|made| *made).count();
    assert_eq!(made, 1);
    assert!(!create_database_if_missing(&url).await.unwrap());
    Db::<Any>::connect(&DatabaseConfig::url(&url)).await.unwrap();
}
