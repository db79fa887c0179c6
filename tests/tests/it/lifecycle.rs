//! One process with everything in it: what starts when, what stops when, and what is kept.
//!
//! The order matters because the parts use each other: a handler in its last second still
//! appends to the outbox, so the relay must outlive it, and nobody may be sent here once the
//! end has begun.

use std::{borrow::Cow, sync::Arc};

use axum::{Router, extract::State, routing::post};
use chassis::{
    App, BoxFuture, Component, Env, Ready, Result, Shutdown,
    core::{AdminConfig, Status},
    data::{Db, Tx, params},
    discovery::{Discovery, Endpoint, Lease, Registrar, Registry, Target},
    grpc::{Channel, from_status},
    http::Problem,
    messaging::{Broker, Consumer, Event, Message, Subscription, inbox::Inbox, outbox::Outbox},
};
use chassis_test::eventually;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status as GrpcStatus, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, database, grpc, http},
    wire,
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().push(what.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// A component that notes when it serves and when it has ended.
struct Noted<C>(C, Journal);

impl<C: Component> Component for Noted<C> {
    fn name(&self) -> Cow<'static, str> {
        self.0.name()
    }

    fn announces(&self) -> bool {
        self.0.announces()
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        let Noted(inner, journal) = *self;
        let name = inner.name();
        let (own, is_ready) = Ready::channel();
        let run = Box::new(inner).run(env, own, shutdown);
        Box::pin(async move {
            let started = async {
                is_ready.await?;
                journal.note(format!("{name} up"));
                ready.ready();
                Ok(())
            };
            let outcome = tokio::try_join!(run, started).map(drop);
            journal.note(format!("{name} ended"));
            outcome
        })
    }
}

/// A registry that notes who comes and goes.
struct NotedRegistry(Registry, Journal);

impl Registrar for NotedRegistry {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        let journal = self.1.clone();
        Box::pin(async move {
            let protocol = target.protocol.clone();
            let lease = self.0.register(target, endpoint).await?;
            journal.note(format!("{protocol} registered"));
            Ok(Lease::new(move || {
                drop(lease);
                journal.note(format!("{protocol} deregistered"));
            }))
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ItemAsked {
    item: String,
}

impl Event for ItemAsked {
    const TOPIC: &'static str = "items.asked";
    const TYPE: &'static str = "item-asked.v1";

    fn key(&self) -> Option<String> {
        Some(self.item.clone())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ItemAdded {
    by: String,
}

impl Event for ItemAdded {
    const TOPIC: &'static str = "items.added";
    const TYPE: &'static str = "item-added.v1";

    fn key(&self) -> Option<String> {
        None
    }
}

/// The state of the service: each handler waits for its gate before it does its work.
///
/// A message is handled in a transaction, which on SQLite keeps other writers out while it
/// waits for its gate; so the consumer has a database of its own here.
#[derive(Clone)]
struct Work {
    db: Db,
    asked_db: Db,
    outbox: Outbox,
    gates: Arc<Gates>,
}

#[derive(Default)]
struct Gates {
    http: Notify,
    grpc: Notify,
    message: Notify,
}

impl Work {
    async fn add(&self, by: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        self.outbox.append(&mut tx, &ItemAdded { by: by.to_owned() }).await?;
        tx.commit().await
    }
}

async fn add(State(work): State<Work>) -> Result<&'static str, Problem> {
    work.gates.http.notified().await;
    work.add("http").await?;
    Ok("added")
}

#[tonic::async_trait]
impl Ordering for Work {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, GrpcStatus> {
        self.gates.grpc.notified().await;
        Ok(Response::new(Order { id: "grpc".to_owned(), ..Order::default() }))
    }
}

async fn asked(work: Work, tx: &mut Tx, event: ItemAsked) -> Result<()> {
    work.gates.message.notified().await;
    tx.execute("insert into asked (item) values ($1)", params![event.item]).await.map(drop)
}

async fn work(folder: &tempfile::TempDir) -> Work {
    let db = database(folder, "items").await;
    let outbox = Outbox::new(&db, "items");
    db.migrate(&outbox.migrations()).await.unwrap();
    let asked_db = database(folder, "asked").await;
    asked_db.migrate(&Inbox::new(&asked_db).migrations()).await.unwrap();
    asked_db.execute("create table asked (item text not null)", vec![]).await.unwrap();
    Work { db, asked_db, outbox, gates: Arc::default() }
}

fn app(work: &Work, broker: &Broker, discovery: &Discovery, journal: &Journal) -> App {
    let admin = AdminConfig { port: 0, ..AdminConfig::default() };
    let router = Router::new().route("/items", post(add)).with_state(work.clone());
    let handlers = OrderingServer::new(work.clone());
    let consumer =
        Consumer::new(broker, &work.asked_db, "items", work.clone()).on::<ItemAsked>(asked);
    let (databases, closed) = ([work.db.clone(), work.asked_db.clone()], journal.clone());
    let noted = journal;
    let app = App::new(Env::test("items"))
        .with(Noted(chassis::http::Admin::new(&admin), noted.clone()))
        .with(Noted(work.outbox.relay(broker), noted.clone()))
        .with(Noted(consumer, noted.clone()))
        .with(Noted(chassis::grpc::Server::new(&grpc(), Routes::new(handlers)), noted.clone()))
        .with(Noted(chassis::http::Server::new(&http(), router), noted.clone()))
        .with(Noted(discovery.registration(), noted.clone()));
    app.on_close("databases", move || async move {
        for db in databases {
            db.close().await;
        }
        closed.note("databases closed");
    });
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_in_order_and_a_drain_finishes_everything_in_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, journal) = (Registry::new(), Journal::default());
    let discovery = Discovery::in_process(registry.clone())
        .with_registrar(NotedRegistry(registry, journal.clone()));
    let broker = Broker::temporary().await.unwrap();
    let work = work(&folder).await;
    let gates = work.gates.clone();

    let service = Service::start(app(&work, &broker, &discovery, &journal)).await;
    let up = [
        "admin up",
        "outbox-relay up",
        "consumer up",
        "grpc up",
        "http up",
        "grpc registered",
        "http registered",
        "registration up",
    ];
    // It is registered once it is ready.
    eventually("it is registered", SOON, async || {
        (journal.lines().len() == up.len()).then_some(())
    })
    .await;
    assert_eq!(journal.lines(), up);

    // One call of each kind is in flight.
    let first = Message::event("test", &ItemAsked { item: "first".to_owned() }).unwrap();
    broker.publish(first.clone()).await.unwrap();
    let request = "POST /items HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    let mut over_http = wire::open(service.address("http"), request).await;
    let channel = Channel::builder("items", &discovery).build().unwrap();
    let over_grpc = tokio::spawn(async move {
        OrderingClient::new(channel).get_order(GetOrderRequest::default()).await
    });
    let env = service.env.clone();
    in_flight(&env, &[("grpc", 1), ("http", 1), ("message", 1)]).await;

    // It goes from the registry first; nothing that is in flight is disturbed.
    service.begin_stop(SOON);
    eventually("it drains", SOON, async || {
        (env.health().status() == Status::Draining).then_some(())
    })
    .await;
    let gone = ["grpc deregistered", "http deregistered", "registration ended"];
    assert_eq!(journal.lines()[up.len()..], gone);
    let target = Target::new("items", "http");
    assert!(discovery.resolver().watch(&target).current().is_empty());

    // Then each part ends with the last thing that it held, and the next one only then.
    gates.http.notify_one();
    let answer = wire::read(&mut over_http).await.expect("the HTTP call is answered");
    assert_eq!((answer.status, &*answer.body), (200, "added"));
    in_flight(&env, &[("grpc", 1), ("http", 0), ("message", 1)]).await;
    gates.grpc.notify_one();
    let answer = over_grpc.await.unwrap().map_err(from_status).unwrap();
    assert_eq!(answer.into_inner().id, "grpc");
    in_flight(&env, &[("grpc", 0), ("http", 0), ("message", 1)]).await;
    gates.message.notify_one();
    service.ended().await.unwrap();
    let down = [
        "http ended",
        "grpc ended",
        "consumer ended",
        "outbox-relay ended",
        "admin ended",
        "databases closed",
    ];
    assert_eq!(journal.lines()[up.len() + gone.len()..], down);

    // The message took effect,
    let db = database(&folder, "asked").await;
    let rows = db.fetch_all("select item from asked", vec![]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].text(0).unwrap(), "first");
    // what the HTTP handler appended in its last moment has left the outbox,
    let mut added = broker.subscribe(Subscription::new("spy", ItemAdded::TOPIC)).await.unwrap();
    let event: ItemAdded = added.next().await.unwrap().unwrap().message.to_event().unwrap();
    assert_eq!(event.by, "http");
    // and what the consumer finished does not come again: the next of its key does.
    let second = Message::event("test", &ItemAsked { item: "first".to_owned() }).unwrap();
    broker.publish(second.clone()).await.unwrap();
    let mut again = broker.subscribe(Subscription::new("items", ItemAsked::TOPIC)).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().message.id, second.id);
}

/// Waits until just this is in flight.
async fn in_flight(env: &Env, expected: &[(&str, u64)]) {
    eventually(&format!("in flight: {expected:?}"), SOON, async || {
        let counts = env.in_flight().counts();
        let holds = |(kind, count): &(&str, u64)| counts.get(kind).copied() == Some(*count);
        expected.iter().all(holds).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_stops_what_had_started_and_registers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, journal) = (Registry::new(), Journal::default());
    let discovery = Discovery::in_process(registry.clone())
        .with_registrar(NotedRegistry(registry, journal.clone()));
    let broker = Broker::temporary().await.unwrap();
    let work = work(&folder).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();

    let config = chassis::http::ServerConfig { port: taken.port(), ..http() };
    let second = chassis::http::Server::new(&config, Router::new());
    let app = app(&work, &broker, &discovery, &journal);
    let (_trigger, shutdown) = Shutdown::new();
    let failed = tokio::time::timeout(SOON, app.with(second).run(shutdown)).await.unwrap();
    let error = failed.unwrap_err();
    assert!(error.message().contains(&taken.to_string()), "{error}");

    assert_eq!(
        journal.lines(),
        [
            "admin up",
            "outbox-relay up",
            "consumer up",
            "grpc up",
            "http up",
            "http ended",
            "grpc ended",
            "consumer ended",
            "outbox-relay ended",
            "admin ended",
            "databases closed",
        ]
    );
}
