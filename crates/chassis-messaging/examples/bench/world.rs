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
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
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
        Ok(World { admin, name, nats, broker, db, outbox })
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
        let sql = "insert into chassis_outbox (part, state, published_at, time, id, source, kind,
                topic, msg_key, content_type, headers, payload)
            select part, $2, case when $2 = 1 then time end, time, gen_random_uuid()::text, source,
                kind, topic, msg_key, content_type, headers, payload
            from (select *, row_number() over (order by seq) - 1 as number from chassis_outbox
                where seq > $4) o
            join generate_series(0::bigint, $1 - 1) n on n % $3 = o.number
            order by n";
        let (keys, state) = (i64::try_from(KEYS)?, i64::from(published));
        let mut left = rows - keys;
        while left > 0 {
            let step = left.min(STEP);
            self.db.execute(sql, chassis_data::params![step, state, keys, last]).await?;
            left -= step;
        }
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

/// The middle one.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The number that this share of all does not exceed.
pub(crate) fn percentile(numbers: &mut [f64], share: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let index = (numbers.len() as f64 * share) as usize;
    numbers.get(index.min(numbers.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
