//! The service in this process, and words for what tests do with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chassis::core::{App, Env, Shutdown, ShutdownTrigger, Status};
use chassis::data::{DatabaseConfig, Db, params};
use chassis::discovery::{Discovery, DiscoveryConfig, Mode};
use chassis::http::Client;
use chassis::messaging::{Broker, BrokerConfig, Event, Message, Subscription};
use chassis_test::{FaultProxy, eventually};
use serde_json::{Value, json};
use shop_contracts::events::ParcelShipped;
use shop_ordering::{Config, Ordering};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::fakes::{Others, World};

/// How long anything may take that should happen soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The service with everything around it; all of it is gone when this is dropped.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) broker: Broker,
    running: Running,
    config: Config,
    others: Others,
    _folder: TempDir,
}

/// The service's app in this process.
struct Running {
    env: Env,
    client: Client,
    task: JoinHandle<chassis::Result<()>>,
    _trigger: ShutdownTrigger,
}

/// An answer of the HTTP interface.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Value,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        Shop::open_with(|_| {}).await
    }

    /// With some settings changed.
    pub(crate) async fn open_with(change: impl FnOnce(&mut Config)) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let others = Others::start().await;
        let mut config = config(&folder, &others);
        change(&mut config);
        let broker = Broker::connect(&config.broker).await.unwrap();
        let running = Running::start(&config).await;
        Shop { world: others.world.clone(), broker, running, config, others, _folder: folder }
    }

    /// Ends the service as a power failure would: nothing is drained, nothing let go.
    pub(crate) async fn crash(&mut self) {
        self.running.task.abort();
        let ended = (&mut self.running.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "it ended before");
    }

    /// Starts the service again on the same database.
    pub(crate) async fn restart(&mut self) {
        self.running = Running::start(&self.config).await;
    }

    pub(crate) fn env(&self) -> &Env {
        &self.running.env
    }

    pub(crate) fn client(&self) -> &Client {
        &self.running.client
    }

    /// The use cases beside the running service, on its database and broker.
    pub(crate) async fn beside(&self) -> Ordering {
        Ordering::connect(&App::new(Env::test("beside")), &self.config).await.unwrap()
    }

    /// Where gRPC is served.
    pub(crate) fn grpc(&self) -> SocketAddr {
        listener(&self.running.env, "grpc")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client().get(path).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Answer {
        Answer::of(self.client().post("/orders").json(body).send().await.unwrap()).await
    }

    pub(crate) async fn post_with_key(&self, key: &str, body: &Value) -> Answer {
        let request = self.client().post("/orders").json(body).idempotency_key(key);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Places an order and gives its key.
    pub(crate) async fn place(&self, body: &Value) -> String {
        let answer = self.post(body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the order has this status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        eventually(&format!("order {id} is {status}"), SOON, async || {
            let order = self.get(&format!("/orders/{id}")).await.body;
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// Waits until a fake was called that many times.
    pub(crate) async fn until_called(&self, method: &str, times: usize) {
        let what = format!("{method} was called {times} times");
        eventually(&what, SOON, async || (self.world.calls(method).len() >= times).then_some(()))
            .await;
    }

    /// Says that a parcel has left, as the shipping service does.
    pub(crate) async fn parcel_shipped(&self, order: &str) {
        self.broker.publish(parcel_shipped(order)).await.unwrap();
    }

    /// Waits until the consumer has answered that many messages about parcels.
    pub(crate) async fn until_heard(&self, messages: u64) {
        eventually(&format!("{messages} messages were heard"), SOON, async || {
            let answered = self.count("consumer_handled") + self.count("consumer_repeated");
            (answered >= messages).then_some(())
        })
        .await;
    }

    /// A counter of the service that has one series only.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let metrics = self.running.env.metrics().encode();
        let series = format!("{name}_total{{");
        let line = metrics.lines().find(|line| line.starts_with(&series)).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Every event that was told of an order, with its topic: read from the outbox with a
    /// connection of our own. Published rows stay there for an hour.
    pub(crate) async fn told(&self, order: &str) -> Vec<(String, Value)> {
        let sql = "select topic, payload from chassis_outbox where msg_key = $1 order by seq";
        let rows = self.db().await.fetch_all(sql, params![order]).await.unwrap();
        rows.iter()
            .map(|row| {
                let payload = serde_json::from_slice(row.blob(1).unwrap()).unwrap();
                (row.text(0).unwrap().to_owned(), payload)
            })
            .collect()
    }

    /// Waits until the saga has given a step another try that many times.
    pub(crate) async fn until_retried(&self, step: &str, times: i64) {
        let db = self.db().await;
        let sql = "select count(*) from chassis_saga_log where step = $1 and what = 'retrying'";
        eventually(&format!("{step} was retried {times} times"), SOON, async || {
            let rows = db.fetch_all(sql, params![step]).await.unwrap();
            (rows[0].int(0).unwrap() >= times).then_some(())
        })
        .await;
    }

    /// The first column of a query.
    pub(crate) async fn texts(&self, sql: &'static str) -> Vec<String> {
        let rows = self.db().await.fetch_all(sql, params![]).await.unwrap();
        rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
    }

    async fn db(&self) -> Db {
        Db::connect(&self.config.database).await.unwrap()
    }

    /// The next message of a topic that a group has not had.
    pub(crate) async fn next<E: Event>(&self) -> (Message, E) {
        let subscription = Subscription::new("the-test", E::TOPIC);
        let mut deliveries = self.broker.subscribe(subscription).await.unwrap();
        let next = tokio::time::timeout(SOON, deliveries.next()).await.expect("no message came");
        let delivery = next.unwrap().unwrap();
        let message = delivery.message.clone();
        delivery.ack().await.unwrap();
        let event = message.to_event().unwrap();
        (message, event)
    }

    /// The network before inventory.
    pub(crate) fn inventory(&self) -> &FaultProxy {
        &self.others.inventory
    }
}

impl Running {
    async fn start(config: &Config) -> Running {
        let env = Env::test("ordering");
        let app = shop_ordering::assemble(App::new(env.clone()), config.clone()).await.unwrap();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(app.run(shutdown));
        let mut status = env.health().watch();
        let up = status.wait_for(|status| *status != Status::Starting);
        tokio::time::timeout(SOON, up).await.expect("it does not start").unwrap();
        let found = fixed([("ordering", "http", listener(&env, "http"))]);
        let client = Client::new("ordering", &Discovery::new(&found).unwrap());
        Running { env, client, task, _trigger: trigger }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    pub(crate) async fn of(response: chassis::http::Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// Asserts that it is a problem with this status and reason.
    pub(crate) fn assert_problem(&self, status: u16, reason: &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!((self.status, &self.body["reason"]), (status, &json!(reason)), "{self:?}");
    }
}

fn listener(env: &Env, protocol: &str) -> SocketAddr {
    let listeners = env.listeners();
    listeners.iter().find(|listener| listener.protocol == protocol).unwrap().address
}

fn config(folder: &TempDir, others: &Others) -> Config {
    let path = folder.path();
    let mut config = Config {
        database: DatabaseConfig::url(format!(
            "sqlite://{}?mode=rwc",
            path.join("ordering.db").display()
        )),
        broker: BrokerConfig::at(format!("embedded:{}", path.join("broker").display())),
        discovery: fixed(others.addresses.iter().map(|(name, at)| (*name, "grpc", *at))),
        ..Config::default()
    };
    config.http.port = 0;
    config.grpc.port = 0;
    // What a crash leaves behind is taken over soon, and a failed step tried again soon.
    config.saga.lease = Duration::from_secs(1);
    config.saga.backoff = Duration::from_millis(20);
    config.outbox.lease = Duration::from_secs(1);
    config
}

/// Discovery that knows these places and no others.
fn fixed<'a>(places: impl IntoIterator<Item = (&'a str, &'a str, SocketAddr)>) -> DiscoveryConfig {
    let mut services: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (service, protocol, address) in places {
        let protocols = services.entry(service.to_owned()).or_default();
        protocols.insert(protocol.to_owned(), vec![address.to_string()]);
    }
    DiscoveryConfig { mode: Mode::Fixed, services, ..DiscoveryConfig::default() }
}

/// An order of ada's.
pub(crate) fn order(card: &str, sku: &str, quantity: i64) -> Value {
    order_of("ada", card, sku, quantity)
}

pub(crate) fn order_of(customer: &str, card: &str, sku: &str, quantity: i64) -> Value {
    let lines = json!([{ "sku": sku, "quantity": quantity }]);
    json!({ "customer_id": customer, "card_token": card, "lines": lines })
}

/// The message of a parcel that has left.
pub(crate) fn parcel_shipped(order: &str) -> Message {
    let event = ParcelShipped {
        parcel_id: format!("parcel-of-{order}"),
        order_id: order.to_owned(),
        customer_id: "ada".to_owned(),
        tracking: "CH1".to_owned(),
    };
    Message::event("shipping", &event).unwrap()
}
