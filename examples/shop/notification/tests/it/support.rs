//! The service in this process, on a database and a broker of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::core::{App, Env, Shutdown, ShutdownTrigger, Status};
use chassis::data::DatabaseConfig;
use chassis::discovery::{Discovery, DiscoveryConfig, Mode};
use chassis::http::Client;
use chassis::messaging::{Broker, BrokerConfig, Event, Message};
use chassis_test::eventually;
use serde_json::Value;
use shop_notification::Config;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long anything may take that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The service with everything around it; all of it is gone when this is dropped.
pub(crate) struct Shop {
    pub(crate) client: Client,
    broker: Broker,
    env: Env,
    task: JoinHandle<chassis::Result<()>>,
    _trigger: ShutdownTrigger,
    _folder: TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let broker = Broker::connect(&config.broker).await.unwrap();

        let env = Env::test("notification");
        let app = shop_notification::assemble(App::new(env.clone()), config).await.unwrap();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(app.run(shutdown));
        let mut status = env.health().watch();
        let up = status.wait_for(|status| *status != Status::Starting);
        tokio::time::timeout(SOON, up).await.expect("it does not start").unwrap();

        let address = env.listeners()[0].address.to_string();
        let protocols = BTreeMap::from([("http".to_owned(), vec![address])]);
        let found = DiscoveryConfig {
            mode: Mode::Fixed,
            services: BTreeMap::from([("notification".to_owned(), protocols)]),
            ..DiscoveryConfig::default()
        };
        let client = Client::new("notification", &Discovery::new(&found).unwrap());
        Shop { client, broker, env, task, _trigger: trigger, _folder: folder }
    }

    pub(crate) async fn publish(&self, message: Message) {
        self.broker.publish(message).await.unwrap();
    }

    /// Publishes an event and waits until it has been handled.
    pub(crate) async fn tell<E: Event>(&self, event: &E) {
        let before = self.answered();
        self.publish(Message::event("the-test", event).unwrap()).await;
        self.until_answered(before + 1).await;
    }

    /// Waits until the consumer has answered that many messages.
    pub(crate) async fn until_answered(&self, messages: u64) {
        eventually(&format!("{messages} messages were answered"), SOON, async || {
            (self.answered() >= messages).then_some(())
        })
        .await;
    }

    fn answered(&self) -> u64 {
        self.count("consumer_handled") + self.count("consumer_repeated")
    }

    /// A counter of the service over all topics.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.env.metrics().encode();
        let series = format!("{name}_total{{");
        let lines = metrics.lines().filter(|line| line.starts_with(&series));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// What a customer was told, newest first.
    pub(crate) async fn news(&self, customer: &str) -> Vec<Value> {
        self.list(&format!("/customers/{customer}/notifications")).await
    }

    /// What a customer was told of one order, newest first.
    pub(crate) async fn news_of(&self, customer: &str, order: &str) -> Vec<Value> {
        self.list(&format!("/customers/{customer}/notifications?order_id={order}")).await
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let response = self.client.get(path).send().await.unwrap();
        let body: Value = response.error_for_status().await.unwrap().json().await.unwrap();
        body["notifications"].as_array().unwrap().clone()
    }
}

pub(crate) fn config(folder: &TempDir) -> Config {
    let path = folder.path();
    let database = path.join("notification.db");
    let mut broker = BrokerConfig::at(format!("embedded:{}", path.join("broker").display()));
    // The broker forgets ids at once, so the very same message is delivered twice.
    broker.duplicate_window = Duration::from_millis(1);
    let mut config = Config {
        database: DatabaseConfig::url(format!("sqlite://{}?mode=rwc", database.display())),
        broker,
        ..Config::default()
    };
    config.http.port = 0;
    config
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.task.abort();
    }
}
