//! The service in this process, on a database and a broker of its own.

use std::time::Duration;

use chassis::core::{App, Env, Shutdown, ShutdownTrigger, Status};
use chassis::data::{DatabaseConfig, Db, params};
use chassis::messaging::{Broker, BrokerConfig, Deliveries, Event, Message, Subscription};
use chassis_test::eventually;
use shop_contracts::events::{Line, OrderConfirmed};
use shop_shipping::Config;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long anything may take that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The service with everything around it; all of it is gone when this is dropped.
pub(crate) struct Shop {
    broker: Broker,
    env: Env,
    task: JoinHandle<chassis::Result<()>>,
    config: Config,
    _trigger: ShutdownTrigger,
    _folder: TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let database = path.join("shipping.db");
        let mut broker = BrokerConfig::at(format!("embedded:{}", path.join("broker").display()));
        // The broker forgets ids at once, so the very same message is delivered twice.
        broker.duplicate_window = Duration::from_millis(1);
        let mut config = Config {
            database: DatabaseConfig::url(format!("sqlite://{}?mode=rwc", database.display())),
            broker,
            ..Config::default()
        };
        // What a crash leaves behind is taken over soon.
        config.outbox.lease = Duration::from_secs(1);
        let broker = Broker::connect(&config.broker).await.unwrap();
        let (env, task, trigger) = start(&config).await;
        Shop { broker, env, task, config, _trigger: trigger, _folder: folder }
    }

    /// Ends the service as a power failure would, and starts another on the same database.
    pub(crate) async fn crash(&mut self) {
        self.task.abort();
        let ended = (&mut self.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "it ended before");
        (self.env, self.task, self._trigger) = start(&self.config).await;
    }

    pub(crate) async fn publish(&self, message: Message) {
        self.broker.publish(message).await.unwrap();
    }

    /// The messages of a topic, from the first on.
    pub(crate) async fn listen(&self, topic: &str) -> Heard {
        Heard(self.broker.subscribe(Subscription::new("the-test", topic)).await.unwrap())
    }

    /// Waits until the consumer has answered that many messages.
    pub(crate) async fn until_answered(&self, messages: u64) {
        eventually(&format!("{messages} messages were answered"), SOON, async || {
            let names = ["consumer_handled", "consumer_repeated", "consumer_dead_lettered"];
            let answered: u64 = names.map(|name| self.count(name)).iter().sum();
            (answered >= messages).then_some(())
        })
        .await;
    }

    /// A counter of the service that has one series only.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.env.metrics().encode();
        let series = format!("{name}_total{{");
        let line = metrics.lines().find(|line| line.starts_with(&series)).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The orders of all parcels and of all events in the outbox, read with a connection of
    /// our own. Published rows stay there for an hour.
    pub(crate) async fn packed_and_told(&self) -> (Vec<String>, Vec<String>) {
        let db: Db = Db::connect(&self.config.database).await.unwrap();
        let texts = async |sql: &'static str| -> Vec<String> {
            let rows = db.fetch_all(sql, params![]).await.unwrap();
            rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
        };
        let packed = texts("select order_id from parcels order by order_id").await;
        (packed, texts("select msg_key from chassis_outbox order by msg_key").await)
    }

    /// Waits until each of these orders has a parcel, and gives those that were told of.
    pub(crate) async fn until_packed(&self, orders: &[String]) -> Vec<String> {
        eventually("each order is packed", SOON, async || {
            let (packed, told) = self.packed_and_told().await;
            (packed == orders).then_some(told)
        })
        .await
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start(config: &Config) -> (Env, JoinHandle<chassis::Result<()>>, ShutdownTrigger) {
    let env = Env::test("shipping");
    let app = shop_shipping::assemble(App::new(env.clone()), config.clone()).await.unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let task = tokio::spawn(app.run(shutdown));
    let mut status = env.health().watch();
    let up = status.wait_for(|status| *status != Status::Starting);
    tokio::time::timeout(SOON, up).await.expect("it does not start").unwrap();
    (env, task, trigger)
}

/// The messages of one topic.
pub(crate) struct Heard(Box<dyn Deliveries>);

impl Heard {
    pub(crate) async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(SOON, self.0.next()).await.expect("no message came");
        let delivery = next.unwrap().unwrap();
        let message = delivery.message.clone();
        delivery.ack().await.unwrap();
        message
    }

    pub(crate) async fn next_event<E: Event>(&mut self) -> E {
        self.next().await.to_event().unwrap()
    }
}

/// The message of an order that is confirmed.
pub(crate) fn confirmed(order: &str) -> Message {
    let line = |sku: &str, quantity| Line { sku: sku.to_owned(), quantity };
    let event = OrderConfirmed {
        order_id: order.to_owned(),
        customer_id: "ada".to_owned(),
        lines: vec![line("cup", 2), line("pot", 1)],
        total_minor: 5_890,
        currency: "EUR".to_owned(),
    };
    Message::event("ordering", &event).unwrap()
}
