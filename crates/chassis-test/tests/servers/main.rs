//! The servers start, keep their data over a crash, and end with their test.

use std::process::Stdio;
use std::time::Duration;

use chassis_test::{
    eventually,
    servers::{Etcd, Nats, Postgres},
};
use sqlx::{Connection, PgConnection};
use tokio::{io::AsyncBufReadExt, net::TcpStream};

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn postgres_keeps_what_was_committed_over_a_crash() {
    let postgres = Postgres::start().await;
    let url = postgres.database("crash").await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("create table item (id bigint); insert into item values (7)")
        .execute(&mut connection)
        .await
        .unwrap();

    postgres.stop();
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().await;

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let id: i64 =
        sqlx::query_scalar("select id from item").fetch_one(&mut connection).await.unwrap();
    assert_eq!(id, 7);
}

#[tokio::test]
async fn each_database_is_fresh() {
    let postgres = Postgres::shared().await;
    let (one, two) = tokio::join!(postgres.database("same"), postgres.database("same"));
    assert_ne!(one, two);
}

#[tokio::test]
async fn nats_stops_and_comes_back_on_the_same_port() {
    let nats = Nats::start().await;
    let address = nats.address().to_owned();
    nats.stop();
    assert!(TcpStream::connect(&address).await.is_err());
    nats.restart().await;
    TcpStream::connect(&address).await.unwrap();
}

#[tokio::test]
async fn etcd_stops_and_comes_back_on_the_same_port() {
    let etcd = Etcd::start().await;
    let url = etcd.url();
    let address = url.strip_prefix("http://").unwrap();
    etcd.stop();
    assert!(TcpStream::connect(address).await.is_err());
    etcd.restart().await;
    TcpStream::connect(address).await.unwrap();
}

/// Set for the process that the next test starts, holding the same test, and then kills.
const HOLD: &str = "CHASSIS_TEST_HOLD";

#[tokio::test]
async fn a_server_ends_when_its_test_is_killed() {
    if std::env::var_os(HOLD).is_some() {
        let nats = Nats::start().await;
        println!("\nserver {}", nats.address());
        return std::future::pending().await;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["a_server_ends_when_its_test_is_killed", "--exact", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the child ended early");
        if let Some(address) = line.strip_prefix("server ") {
            break address.to_owned();
        }
    };
    TcpStream::connect(&address).await.unwrap();

    child.kill().await.unwrap();
    eventually("the orphaned server is gone", BOUND, async || {
        TcpStream::connect(&address).await.err()
    })
    .await;
}
