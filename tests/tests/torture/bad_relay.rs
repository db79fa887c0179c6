//! A relay as it is written in an afternoon, with one of three bugs.
//!
//! It reads the outbox's rows and keeps its marks and its lease in tables of its own.

use std::time::Duration;

use chassis::messaging::{Broker, Event, Message, failpoint};
use chassis_tests::torture::events::Changed;
use sqlx::{Connection, PgConnection, Row};
use tokio::time::sleep;

use super::stage::{Copy, SOON, Stage};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// It notes a row as published before it publishes it.
    MarkBeforePublish,
    /// It remembers the last row and reads what comes after it.
    NaiveCursor,
    /// It has a lease, but nothing checks that when it writes its notes.
    NoFencing,
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS bad_mark (seq BIGINT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS bad_lease (
        id BIGINT PRIMARY KEY, owner TEXT NOT NULL, until TIMESTAMPTZ NOT NULL);
    INSERT INTO bad_lease VALUES (1, '', now()) ON CONFLICT DO NOTHING;";
const UNMARKED: &str = "SELECT seq, topic, msg_key, payload FROM chassis_outbox
    WHERE seq NOT IN (SELECT seq FROM bad_mark) ORDER BY seq";
const AFTER: &str = "SELECT seq, topic, msg_key, payload FROM chassis_outbox
    WHERE seq > $1 ORDER BY seq";
const LEASE: &str = "UPDATE bad_lease SET owner = $1, until = now() + interval '500 ms'
    WHERE owner = $1 OR until < now()";

/// The tables of the bad relay.
pub(crate) async fn tables(stage: &Stage) -> PgConnection {
    let mut db = PgConnection::connect(stage.config.database.url.expose()).await.unwrap();
    sqlx::raw_sql(TABLES).execute(&mut db).await.unwrap();
    db
}

/// How many rows are marked.
pub(crate) async fn marked(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM bad_mark").fetch_one(db).await.unwrap()
}

impl Copy {
    pub(crate) fn bad_relay(stage: &Stage, bug: Bug, name: &'static str) -> Copy {
        let config = stage.config.clone();
        Copy::start(move || async move {
            let mut db = PgConnection::connect(config.database.url.expose()).await.unwrap();
            let broker = Broker::connect(&config.broker).await.unwrap();
            let mut last = 0;
            loop {
                look(&mut db, &broker, bug, name, &mut last).await;
                sleep(LOOK).await;
            }
        })
    }
}

async fn look(db: &mut PgConnection, broker: &Broker, bug: Bug, name: &str, last: &mut i64) {
    match bug {
        Bug::MarkBeforePublish => {
            for (seq, message) in read(db, UNMARKED, None).await {
                mark(db, seq).await;
                failpoint::reach("relay.before_publish").await.unwrap();
                publish(broker, message).await;
            }
        }
        Bug::NaiveCursor => {
            for (seq, message) in read(db, AFTER, Some(*last)).await {
                publish(broker, message).await;
                *last = seq;
            }
        }
        Bug::NoFencing => {
            let leased = sqlx::query(LEASE).bind(name).execute(&mut *db).await.unwrap();
            if leased.rows_affected() == 0 {
                return;
            }
            let rows = read(db, UNMARKED, None).await;
            for (_, message) in &rows {
                publish(broker, message.clone()).await;
            }
            if !rows.is_empty() {
                failpoint::reach("relay.before_mark").await.unwrap();
            }
            for (seq, _) in rows {
                mark(db, seq).await;
            }
        }
    }
}

async fn read(db: &mut PgConnection, sql: &'static str, after: Option<i64>) -> Vec<(i64, Message)> {
    let mut query = sqlx::query(sql);
    if let Some(after) = after {
        query = query.bind(after);
    }
    let rows = query.fetch_all(db).await.unwrap();
    let message = |row: &sqlx::postgres::PgRow| {
        let payload: Vec<u8> = row.get("payload");
        let event: Changed = serde_json::from_slice(&payload).unwrap();
        let message = Message::new(row.get::<String, _>("topic"), Changed::TYPE, payload);
        (row.get("seq"), message.with_id(event.id).with_key(row.get::<String, _>("msg_key")))
    };
    rows.iter().map(message).collect()
}

async fn mark(db: &mut PgConnection, seq: i64) {
    let sql = "INSERT INTO bad_mark VALUES ($1) ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(seq).execute(db).await.unwrap();
}

async fn publish(broker: &Broker, message: Message) {
    tokio::time::timeout(SOON, broker.publish(message)).await.unwrap().unwrap();
}
