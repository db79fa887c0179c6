//! One call goes through HTTP, gRPC, a database, a broker and a consumer, and stays one call.
//!
//! Each of these carries the context in its own way, and each crate tests its own. Here they
//! are joined, because a chain is seen to be whole only from end to end: one trace, no span
//! without its parent, one request id, a deadline that shrinks, and none where nobody waits.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use chassis::{
    App, Context, Env, Result,
    core::{SpanId, SpanKind, SpanRecord, TraceContext},
    data::{Db, Tx},
    discovery::{ClientConfig, Discovery, Registry},
    grpc::{Channel, IntoStatus, from_status},
    http::{Path, Problem, REQUEST_TIMEOUT_MS},
    messaging::{Broker, Consumer, Event, Subscription, inbox::Inbox, outbox::Outbox},
};
use chassis_test::eventually;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, database, grpc, http},
    wire,
};

/// The time that the caller gives.
const GIVEN: Duration = Duration::from_secs(20);

/// What a handler finds in its ambient context.
#[derive(Clone, Debug)]
struct Found {
    place: &'static str,
    trace: TraceContext,
    request_id: String,
    left: Option<Duration>,
}

/// What all handlers found, in the order of the call.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Found>>>);

impl Notes {
    fn take_down(&self, place: &'static str) {
        let context = Context::current();
        self.0.lock().push(Found {
            place,
            trace: context.trace().clone(),
            request_id: context.request_id().to_owned(),
            left: context.deadline().map(|deadline| deadline.remaining()),
        });
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OrderSeen {
    id: String,
}

impl Event for OrderSeen {
    const TOPIC: &'static str = "orders.seen";
    const TYPE: &'static str = "order-seen.v1";

    fn key(&self) -> Option<String> {
        Some(self.id.clone())
    }
}

/// The first service: HTTP in, gRPC out.
#[derive(Clone)]
struct Edge {
    orders: OrderingClient<Channel>,
    notes: Notes,
}

async fn enter(State(edge): State<Edge>, Path(id): Path<String>) -> Result<String, Problem> {
    edge.notes.take_down("edge");
    let mut orders = edge.orders.clone();
    let order = orders.get_order(GetOrderRequest { id }).await.map_err(from_status)?;
    Ok(order.into_inner().status)
}

/// The second: gRPC in, an event in the outbox.
struct Middle {
    db: Db,
    outbox: Outbox,
    notes: Notes,
}

impl Middle {
    async fn say(&self, id: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        self.outbox.append(&mut tx, &OrderSeen { id: id.to_owned() }).await?;
        tx.commit().await
    }
}

#[tonic::async_trait]
impl Ordering for Middle {
    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<Order>, Status> {
        self.notes.take_down("middle");
        let id = request.into_inner().id;
        self.say(&id).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(Order { id, status: "seen".to_owned(), ..Order::default() }))
    }
}

/// The third: hears the event.
async fn hear(notes: Notes, _tx: &mut Tx, _event: OrderSeen) -> Result<()> {
    notes.take_down("far");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_trace_from_the_edge_to_the_last_consumer() {
    let folder = tempfile::tempdir().unwrap();
    let discovery = Discovery::in_process(Registry::new());
    let broker = Broker::temporary().await.unwrap();
    let notes = Notes::default();

    let far = far(&folder, &broker, &notes).await;
    let middle = middle(&folder, &broker, &discovery, &notes).await;
    let edge = edge(&discovery, &notes).await;
    let mut spy = broker.subscribe(Subscription::new("spy", OrderSeen::TOPIC)).await.unwrap();

    let caller = TraceContext::root(true);
    let given = GIVEN.as_millis().to_string();
    let headers = [
        ("traceparent", &*caller.traceparent()),
        ("x-request-id", "request-7"),
        (REQUEST_TIMEOUT_MS, &*given),
    ];
    let answer = wire::get(edge.address("http"), "/orders/7", &headers).await;
    assert_eq!((answer.status, &*answer.body), (200, "seen"));
    assert_eq!(answer.header("x-request-id"), Some("request-7"));

    // A span ends a moment after the answer, the message's later still.
    let envs = [&edge.env, &middle.env, &far.env];
    let spans = eventually("five spans of the call", SOON, async || {
        let all = envs.iter().flat_map(|env| env.captured_spans());
        let of_call: Vec<_> = all.filter(|span| span.trace.trace_id == caller.trace_id).collect();
        (of_call.len() >= 5).then_some(of_call)
    })
    .await;
    let message = spy.next().await.unwrap().expect("the broker has the message").message;

    let chain = chain(&spans, caller.span_id);
    assert_eq!(
        chain.iter().map(|span| (&*span.service, span.kind, &*span.name)).collect::<Vec<_>>(),
        [
            ("edge", SpanKind::Server, "GET /orders/{id}"),
            ("edge", SpanKind::Client, "shop.ordering.v1.Ordering/GetOrder"),
            ("middle", SpanKind::Server, "shop.ordering.v1.Ordering/GetOrder"),
            ("middle", SpanKind::Producer, "publish orders.seen"),
            ("far", SpanKind::Consumer, "process orders.seen"),
        ]
    );
    assert!(chain.iter().all(|span| span.error.is_none()), "{chain:?}");

    let found = notes.0.lock().clone();
    let places: Vec<_> = found.iter().map(|found| found.place).collect();
    assert_eq!(places, ["edge", "middle", "far"]);
    for found in &found {
        assert_eq!(found.trace.trace_id, caller.trace_id, "{found:?}");
        assert_eq!(found.request_id, "request-7", "{found:?}");
    }
    // Log lines and spans of one place agree: a handler's context is its server's span.
    let served = [chain[0], chain[2], chain[4]].map(|span| span.trace.span_id);
    assert_eq!(found.iter().map(|found| found.trace.span_id).collect::<Vec<_>>(), served);

    let left: Vec<_> = found.iter().map(|found| found.left.expect("a deadline")).collect();
    assert!(left[0] <= GIVEN, "the caller's time holds: {left:?}");
    assert!(left[1] <= left[0], "what is left only shrinks: {left:?}");
    // Nobody waits for a handler of a message; only its own time-out of 30 s holds there.
    assert!(left[2] > GIVEN, "the caller's deadline stays out of messages: {left:?}");
    let carried: Vec<_> = message.headers.keys().collect();
    assert_eq!(carried, ["traceparent", "x-appended-by", "x-request-id"]);
    // Who appended is linked from the publish, its child, and from the handler.
    let appended = chain[2].trace.span_id;
    assert_eq!(chain[3].trace.parent, Some(appended));
    assert_eq!(chain[4].links.iter().map(|link| link.span_id).collect::<Vec<_>>(), [appended]);
    let carried = TraceContext::parse(message.header("traceparent").unwrap()).unwrap();
    assert_eq!(carried.span_id, chain[3].trace.span_id);

    edge.stop().await;
    middle.stop().await;
    far.stop().await;
}

/// The spans from the one below `parent` to the last, each the only child of the one before.
fn chain(spans: &[SpanRecord], parent: SpanId) -> Vec<&SpanRecord> {
    let mut chain = Vec::new();
    let mut parent = parent;
    loop {
        let children: Vec<_> =
            spans.iter().filter(|span| span.trace.parent == Some(parent)).collect();
        match children[..] {
            [] => break,
            [child] => {
                parent = child.trace.span_id;
                chain.push(child);
            }
            _ => panic!("more than one child: {children:?}"),
        }
    }
    assert_eq!(chain.len(), spans.len(), "a span has lost its parent: {spans:?}");
    chain
}

async fn far(folder: &tempfile::TempDir, broker: &Broker, notes: &Notes) -> Service {
    let db = database(folder, "far").await;
    db.migrate(&Inbox::new(&db).migrations()).await.unwrap();
    let consumer = Consumer::new(broker, &db, "far", notes.clone()).on::<OrderSeen>(hear);
    Service::start(App::new(Env::test("far")).with(consumer)).await
}

async fn middle(
    folder: &tempfile::TempDir,
    broker: &Broker,
    discovery: &Discovery,
    notes: &Notes,
) -> Service {
    let db = database(folder, "middle").await;
    let outbox = Outbox::new(&db, "middle");
    db.migrate(&outbox.migrations()).await.unwrap();
    let relay = outbox.relay(broker);
    let handlers = OrderingServer::new(Middle { db, outbox, notes: notes.clone() });
    let app = App::new(Env::test("middle"))
        .with(relay)
        .with(chassis::grpc::Server::new(&grpc(), Routes::new(handlers)))
        .with(discovery.registration());
    Service::start(app).await
}

async fn edge(discovery: &Discovery, notes: &Notes) -> Service {
    // Time enough for every attempt: what shrinks is then the caller's deadline.
    let config =
        ClientConfig { timeout: 2 * GIVEN, attempt_timeout: 2 * GIVEN, ..ClientConfig::default() };
    let channel = Channel::builder("middle", discovery).config(&config).build().unwrap();
    let state = Edge { orders: OrderingClient::new(channel), notes: notes.clone() };
    let router = Router::new().route("/orders/{id}", get(enter)).with_state(state);
    let app = App::new(Env::test("edge"))
        .with(chassis::http::Server::new(&http(), router))
        .with(discovery.registration());
    Service::start(app).await
}
