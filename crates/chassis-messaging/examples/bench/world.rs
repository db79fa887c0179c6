//! The servers, and a database and streams that are gone at the end.

use std::str::FromStr;
use std::time::Duration;

use chassis_core::{Component, Env, Ready, Shutdown, ShutdownTrigger};
use chassis_data::{DatabaseConfig, Db};
use chassis_messaging::outbox::OutboxConfig;
use chassis_messaging::{Broker, BrokerConfig, Event, Inbox, Message, Outbox, Publisher};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::task::JoinHandle;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
pub(crate) type Database = Db<sqlx::Postgres>;

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 400;
/// Keys that the messages are spread over.
pub(crate) const KEYS: usize = 1000;
/// Each first segment of a topic is a stream.
pub(crate) const STREAM: &str = "chassis-bench";
pub(crate) const TOPIC: &str = "chassis-bench.items";
pub(crate) const RAW_STREAM: &str = "chassis-bench-raw";
/// What takes longer has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The number of the lock, by which runs on the same servers keep out of each other's way.
const ALONE: i64 = 0x6368_6173_7369;
/// Rows that one statement makes.
const STEP: i64 = 500_000;

/// What is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) number: usize,
    pub(crate) pad: String,
}

impl Event for Item {
    const TOPIC: &'static str = TOPIC;
    const TYPE: &'static str = "item-added.v1";

    fn key(&self) -> Option<String> {
        Some(format!("key-{}", self.number % KEYS))
    }
}

pub(crate) struct World {
    admin: PgConnectOptions,
    /// Holds the lock that keeps a second run out: its streams have the same names.
    _alone: PgConnection,
    name: String,
    pub(crate) nats: async_nats::Client,
    pub(crate) broker: Broker,
    pub(crate) db: Database,
    pub(crate) outbox: Outbox<sqlx::Postgres>,
}

impl World {
    pub(crate) async fn connect() -> Outcome<World> {
        let admin = PgConnectOptions::from_str(&std::env::var("DATABASE_URL")?)?;
        let name = format!("chassis_bench_{}", std::process::id());
        let mut connection = PgConnection::connect_with(&admin).await?;
        let alone: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(ALONE)
            .fetch_one(&mut connection)
            .await?;
        if !alone {
            return Err(
                "another run of this program uses the servers; their streams would mix".into()
            );
        }
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await?;
        let url = admin.clone().database(&name).to_url_lossy();
        let config = DatabaseConfig {
            max_connections: 32,
            statement_timeout: Duration::from_secs(120),
            ..DatabaseConfig::url(url.as_str())
        };
        let db = Db::connect(&config).await?;
        let outbox = Outbox::new(&db, "bench").with_config(OutboxConfig::default());
        db.migrate(&outbox.migrations()).await?;
        db.migrate(&Inbox::new(&db).migrations()).await?;
        db.execute("create table item (id bigserial primary key, name text not null)", Vec::new())
            .await?;
        let nats_url = std::env::var("NATS_URL")?;
        let broker = Broker::connect(&BrokerConfig::at(&nats_url)).await?;
        let nats = async_nats::connect(&nats_url).await?;
        Ok(World { admin, _alone: connection, name, nats, broker, db, outbox })
    }

    pub(crate) async fn remove(self) -> Outcome<()> {
        self.broker.close().await;
        let context = async_nats::jetstream::new(self.nats);
        for stream in [STREAM, RAW_STREAM] {
            // It may never have been made.
            let _ = context.delete_stream(stream).await;
        }
        self.db.close().await;
        let mut connection = PgConnection::connect_with(&self.admin).await?;
        let sql = format!("drop database {} with (force)", self.name);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Empties the tables.
    pub(crate) async fn empty(&self) -> Outcome<()> {
        self.db.execute("truncate chassis_outbox restart identity", Vec::new()).await?;
        self.db.execute("truncate item, chassis_inbox restart identity", Vec::new()).await?;
        Ok(())
    }

    /// Removes what was published so far: a new group begins with the oldest message.
    pub(crate) async fn forget_messages(&self) {
        // There may be none.
        let _ = async_nats::jetstream::new(self.nats.clone()).delete_stream(STREAM).await;
    }

    /// Puts `rows` into the outbox, as appends would, over all keys.
    pub(crate) async fn fill(&self, rows: i64, published: bool) -> Outcome<()> {
        // One row of each key by the proper way shows what the others look like.
        let last = "select coalesce(max(seq), 0) from chassis_outbox";
        let last = self.db.fetch_optional(last, Vec::new()).await?;
        let last = last.ok_or("no answer")?.int(0)?;
        let mut tx = self.db.begin().await?;
        for key in 0..KEYS {
            self.outbox.append_message(&mut tx, message(key)).await?;
        }
        tx.commit().await?;
        let template = "create unlogged table template as
            select row_number() over (order by seq) - 1 as number, part, time, source, kind,
                topic, msg_key, content_type, headers, payload
            from chassis_outbox where seq > $1";
        // By a scan of the few models for each number: no sort of what is wide.
        let copy = "insert into chassis_outbox (part, state, published_at, time, id, source, kind,
                topic, msg_key, content_type, headers, payload)
            select part, $2, case when $2 = 1 then time end, time, gen_random_uuid()::text, source,
                kind, topic, msg_key, content_type, headers, payload
            from generate_series(0::bigint, $1 - 1) n
            cross join lateral (select * from template where number = n % $3) model";
        let state = i64::from(published);
        if published {
            let sql = "update chassis_outbox set state = 1, published_at = time where seq > $1";
            self.db.execute(sql, chassis_data::params![last]).await?;
        }
        self.db.execute("drop table if exists template", Vec::new()).await?;
        // A statement that makes a table takes no values.
        let template = template.replace("$1", &last.to_string());
        self.db.execute(AssertSqlSafe(template), Vec::new()).await?;
        self.db.execute("create unique index on template (number)", Vec::new()).await?;
        let keys = i64::try_from(KEYS)?;
        let mut left = rows - keys;
        while left > 0 {
            let step = left.min(STEP);
            self.db.execute(copy, chassis_data::params![step, state, keys]).await?;
            left -= step;
        }
        self.db.execute("drop table template", Vec::new()).await?;
        Ok(())
    }
}

/// A message of the usual size.
pub(crate) fn message(number: usize) -> Message {
    let empty = r#"{"number":,"pad":""}"#.len() + number.checked_ilog10().unwrap_or(0) as usize + 1;
    let item = Item { number, pad: "x".repeat(PAYLOAD - empty) };
    // It holds nothing that would not serialise.
    Message::event("bench", &item).unwrap_or_else(|_| Message::new(TOPIC, Item::TYPE, "{}"))
}

/// A relay that runs beside.
pub(crate) struct Running {
    trigger: ShutdownTrigger,
    task: JoinHandle<chassis_core::Result<()>>,
    pub(crate) env: Env,
}

impl Running {
    pub(crate) async fn start<P: Publisher + Clone>(
        outbox: &Outbox<sqlx::Postgres>,
        publisher: &P,
    ) -> Outcome<Running> {
        let env = Env::new(chassis_core::service_info!("bench"));
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let task =
            tokio::spawn(Box::new(outbox.relay(publisher)).run(env.clone(), ready, shutdown));
        is_ready.await?;
        Ok(Running { trigger, task, env })
    }

    pub(crate) async fn stop(self) -> Outcome<()> {
        self.trigger.shutdown(Duration::from_secs(30));
        Ok(self.task.await??)
    }
}
