//! A service in miniature: a database, a broker, and a consumer that notes what
//! takes effect.

use std::time::Duration;

use chassis_core::{Component, Env, Ready, Result, Shutdown, ShutdownTrigger};
use chassis_data::{DatabaseConfig, Db, Tx, params};
use chassis_messaging::inbox::Inbox;
use chassis_messaging::{Broker, Consumer, ConsumerConfig, Event, Message};
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Long enough for a busy machine; nothing here should come near it.
pub(crate) const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) name: String,
    pub(crate) number: i64,
}

impl Greeting {
    pub(crate) fn new(name: &str, number: i64) -> Greeting {
        Greeting { name: name.to_owned(), number }
    }
}

impl Event for Greeting {
    const TOPIC: &'static str = "greetings.said";
    const TYPE: &'static str = "greeting-said.v1";

    fn key(&self) -> Option<String> {
        Some(self.name.clone())
    }
}

/// A greeting that says which one comes before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ordered(pub(crate) Greeting);

impl Event for Ordered {
    const TOPIC: &'static str = Greeting::TOPIC;
    const TYPE: &'static str = "greeting-ordered.v1";
    const IN_TURN: bool = true;

    fn key(&self) -> Option<String> {
        self.0.key()
    }
}

pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) broker: Broker,
    pub(crate) env: Env,
    folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with_broker(Broker::temporary().await.unwrap()).await
    }

    pub(crate) async fn with_broker(broker: Broker) -> World {
        World::with(broker, DatabaseConfig::default().acquire_timeout).await
    }

    /// A world whose database is waited for no longer than `patience`.
    pub(crate) async fn with(broker: Broker, patience: Duration) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("service.db");
        let config = DatabaseConfig {
            url: chassis_core::Secret::new(format!("sqlite://{}?mode=rwc", path.display())),
            acquire_timeout: patience,
            ..DatabaseConfig::default()
        };
        let db = Db::connect(&config).await.unwrap();
        db.migrate(&Inbox::new(&db).migrations()).await.unwrap();
        let sql = "create table effects (position integer primary key, name text, number bigint)";
        db.execute(sql, params![]).await.unwrap();
        World { db, broker, env: Env::test("greeter"), folder }
    }

    /// Holds the database's lock until it is rolled back or dropped: nobody can write.
    pub(crate) async fn lock(&self) -> SqliteConnection {
        let path = self.folder.path().join("service.db");
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("begin immediate").execute(&mut connection).await.unwrap();
        connection
    }

    pub(crate) fn consumer(&self) -> Consumer<()> {
        Consumer::new(&self.broker, &self.db, "greeter", ()).with_config(config())
    }

    pub(crate) async fn publish(&self, greeting: &Greeting) -> Message {
        let message = Message::event("test", greeting).unwrap();
        self.broker.publish(message.clone()).await.unwrap();
        message
    }

    /// Starts a consumer and waits until it is ready.
    pub(crate) async fn start<S>(&self, consumer: Consumer<S>) -> Running
    where
        S: Clone + Send + Sync + 'static,
    {
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let task = tokio::spawn(Box::new(consumer).run(self.env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        Running { trigger, task }
    }

    /// What took effect, in the order of the commits.
    pub(crate) async fn effects(&self) -> Vec<(String, i64)> {
        let sql = "select name, number from effects order by position";
        let rows = self.db.fetch_all(sql, params![]).await.unwrap();
        rows.iter().map(|row| (row.text(0).unwrap().to_owned(), row.int(1).unwrap())).collect()
    }

    pub(crate) async fn until_effects(&self, count: usize) -> Vec<(String, i64)> {
        chassis_test::eventually(&format!("{count} effects"), SOON, async || {
            let effects = self.effects().await;
            (effects.len() >= count).then_some(effects)
        })
        .await
    }

    /// A counter of the consumer, with one more label where it has one.
    pub(crate) fn count(&self, name: &'static str, more: &[(&'static str, &str)]) -> u64 {
        let labels = [&[("group", "greeter"), ("topic", Greeting::TOPIC)], more].concat();
        self.env.metrics().counter(name, "", &labels).get()
    }
}

pub(crate) struct Running {
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
}

impl Running {
    pub(crate) async fn stop(self, drain: Duration) -> Result<()> {
        self.trigger.shutdown(drain);
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap()
    }
}

impl Running {
    /// Ends it as a killed process ends: nothing is answered.
    pub(crate) async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Settings for tests: short delays.
pub(crate) fn config() -> ConsumerConfig {
    ConsumerConfig {
        retry_delay: Duration::from_millis(20),
        max_retry_delay: Duration::from_millis(100),
        max_attempts: 3,
        immediate_retries: 1,
        handler_timeout: Duration::from_secs(10),
        ..ConsumerConfig::default()
    }
}

/// The plain handler: notes the greeting.
pub(crate) async fn note<S>(_state: S, tx: &mut Tx, greeting: Greeting) -> Result<()> {
    let sql = "insert into effects (name, number) values ($1, $2)";
    tx.execute(sql, params![greeting.name, greeting.number]).await.map(drop)
}
