//! More calls than there is room for: what is let in is answered in time, and the rest is told so.
//!
//! What a server has room for is made here: a handler has a few places and each call holds one
//! for a fixed time. So the processor is not what is short, and a busy machine changes little.
//! Calls come at a rate of their own, as they do from a crowd, and wait for nobody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use chassis::{
    App, BoxFuture, Context, Env, Result,
    admission::{AdmissionConfig, RoutePriority, ShedConfig},
    core::{AdminConfig, Priority},
    discovery::{
        BreakerConfig, ClientConfig, Discovery, Endpoint, Lease, Registrar, Registry, Target,
    },
    grpc::{Channel, from_status},
    http::{Admin, Client},
};
use parking_lot::Mutex;
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    hello::SOON,
    service::{Service, grpc, http},
};

const MS: Duration = Duration::from_millis(1);
/// Calls that the handler works on at a time, and how long it takes for one.
const PLACES: usize = 8;
const WORK: Duration = Duration::from_millis(200);
/// Calls a second that there is room for.
const CAPACITY: u32 = 40;
/// How long the crowd stays.
const CROWD: Duration = Duration::from_secs(5);

/// What has room for a few calls at a time; the others wait.
#[derive(Clone)]
struct Workshop {
    places: Arc<Semaphore>,
    book: Arc<Mutex<Book>>,
}

/// What is noted of a workshop, in numbers that do not depend on what else this machine does.
struct Book {
    inside: usize,
    /// For each call, how many were inside with it when it came.
    met: Vec<usize>,
    began: Instant,
    noted: Instant,
    /// Time that places were in use, of all together.
    in_use: Duration,
}

impl Book {
    fn new() -> Book {
        let now = Instant::now();
        Book { inside: 0, met: Vec::new(), began: now, noted: now, in_use: Duration::ZERO }
    }

    fn note(&mut self) {
        let places = u32::try_from(self.inside.min(PLACES)).unwrap();
        self.in_use += self.noted.elapsed() * places;
        self.noted = Instant::now();
    }

    /// How long a call took beside one that met nobody: it waited for those before it.
    fn p99(&self) -> usize {
        let mut times: Vec<usize> = self.met.iter().map(|met| met.div_ceil(PLACES)).collect();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    /// The work that was done, of all that can be.
    fn goodput(&mut self) -> f64 {
        self.note();
        self.in_use.as_secs_f64() / (PLACES as f64 * self.began.elapsed().as_secs_f64())
    }
}

impl Workshop {
    fn new() -> Workshop {
        let book = Arc::new(Mutex::new(Book::new()));
        Workshop { places: Arc::new(Semaphore::new(PLACES)), book }
    }

    async fn work(&self) {
        let _inside = Inside::enter(Arc::clone(&self.book));
        let _place = self.places.acquire().await.unwrap();
        tokio::time::sleep(WORK).await;
    }

    /// A new page, with those who are inside.
    fn turn_the_page(&self) {
        let mut book = self.book.lock();
        *book = Book { inside: book.inside, ..Book::new() };
    }
}

/// A call in the workshop.
struct Inside(Arc<Mutex<Book>>);

impl Inside {
    fn enter(shared: Arc<Mutex<Book>>) -> Inside {
        let mut book = shared.lock();
        book.note();
        book.inside += 1;
        let met = book.inside;
        book.met.push(met);
        drop(book);
        Inside(shared)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut book = self.0.lock();
        book.note();
        book.inside -= 1;
    }
}

#[tonic::async_trait]
impl Ordering for Workshop {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        self.work().await;
        Ok(Response::new(Order::default()))
    }
}

type Call = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A service, and a client of it that neither retries nor gives up.
struct World {
    service: Service,
    workshop: Workshop,
    call: Call,
    admin: Client,
    alive: Option<Client>,
    _leases: Vec<Lease>,
}

fn patient() -> ClientConfig {
    ClientConfig {
        timeout: 20_000 * MS,
        attempt_timeout: 20_000 * MS,
        max_attempts: 1,
        max_concurrent: 100_000,
        breaker: BreakerConfig {
            consecutive_failures: 1_000,
            min_calls: 100_000,
            ..BreakerConfig::default()
        },
        ..ClientConfig::default()
    }
}

fn shedding() -> AdmissionConfig {
    AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        priorities: BTreeMap::from([("/alive".to_owned(), RoutePriority::Exempt)]),
        shed: ShedConfig {
            enabled: true,
            // Other programs on this machine are not what is tested.
            queue_delay: Duration::from_secs(10),
            // Nor is a machine that stands still an overload.
            min_limit: PLACES as u32,
            ..ShedConfig::default()
        },
        ..AdmissionConfig::default()
    }
}

impl World {
    async fn over_http(admission: AdmissionConfig) -> World {
        let workshop = Workshop::new();
        let work = {
            let workshop = workshop.clone();
            move || async move { workshop.work().await }
        };
        let router = Router::new().route("/", get(work)).route("/alive", get(|| async {}));
        let config = chassis::http::ServerConfig { admission, ..http() };
        let server = chassis::http::Server::new(&config, router);
        let app = App::new(Env::test("items")).with(admin()).with(server);
        let (service, discovery, leases) = World::start(app, "http").await;
        let client = client("items", &discovery);
        let alive = Some(client.clone());
        let call: Call = Arc::new(move || get_ok(&client, "/"));
        let admin = client_of_admin(&discovery);
        World { service, workshop, call, admin, alive, _leases: leases }
    }

    async fn over_grpc(admission: AdmissionConfig) -> World {
        let workshop = Workshop::new();
        let routes = Routes::new(OrderingServer::new(workshop.clone()));
        let config = chassis::grpc::ServerConfig { admission, ..grpc() };
        let server = chassis::grpc::Server::new(&config, routes);
        let app = App::new(Env::test("items")).with(admin()).with(server);
        let (service, discovery, leases) = World::start(app, "grpc").await;
        let channel = Channel::builder("items", &discovery).config(&patient()).build().unwrap();
        let client = OrderingClient::new(channel);
        let call: Call = Arc::new(move || {
            let mut client = client.clone();
            Box::pin(async move {
                let answer = client.get_order(GetOrderRequest::default()).await;
                answer.map(drop).map_err(from_status)
            })
        });
        let admin = client_of_admin(&discovery);
        World { service, workshop, call, admin, alive: None, _leases: leases }
    }

    async fn start(app: App, protocol: &'static str) -> (Service, Discovery, Vec<Lease>) {
        let service = Service::start(app).await;
        let registry = Registry::new();
        let mut leases = Vec::new();
        for (name, listener, spoken) in [("items", protocol, protocol), ("admin", "admin", "http")]
        {
            let endpoint = Endpoint::new(service.address(listener));
            leases.push(registry.register(Target::new(name, spoken), endpoint).await.unwrap());
        }
        (service, Discovery::in_process(registry), leases)
    }
}

fn admin() -> Admin {
    Admin::new(&AdminConfig { port: 0, ..AdminConfig::default() })
}

fn client(name: &str, discovery: &Discovery) -> Client {
    Client::builder(name, discovery).config(&patient()).build().unwrap()
}

fn client_of_admin(discovery: &Discovery) -> Client {
    client("admin", discovery)
}

fn get_ok(client: &Client, path: &str) -> BoxFuture<'static, Result<()>> {
    let call = client.get(path).send();
    Box::pin(async move { call.await?.error_for_status().await.map(drop) })
}

/// How the calls of one kind ended.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
    failed: Vec<String>,
}

impl Tally {
    fn note(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.answered += 1,
            Err(error) if error.reason() == "SERVER_OVERLOADED" => self.refused += 1,
            Err(error) => self.failed.push(error.chain()),
        }
    }

    /// The part that was answered.
    fn share(&self) -> f64 {
        self.answered as f64 / (self.answered + self.refused + self.failed.len()) as f64
    }
}

/// As many callers as there are places, each with one call at a time: nobody waits.
async fn calm(call: &Call, time: Duration) -> Tally {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..PLACES {
        let call = Arc::clone(call);
        callers.spawn(async move {
            let mut results = Vec::new();
            while begun.elapsed() < time {
                results.push(call().await);
            }
            results
        });
    }
    let mut tally = Tally::default();
    callers.join_all().await.into_iter().flatten().for_each(|result| tally.note(result));
    tally
}

/// So many calls a second, whether the ones before were answered or not.
async fn crowd(call: &Call, per_second: u32, time: Duration, priority: Priority) -> Tally {
    let begun = Instant::now();
    let ctx = Context::background(&Env::test("caller")).with_priority(priority);
    let mut calls = JoinSet::new();
    for n in 0..u32::try_from(time.as_millis()).unwrap() * per_second / 1_000 {
        tokio::time::sleep_until(begun + n * Duration::from_secs(1) / per_second).await;
        calls.spawn(ctx.clone().scope(call()));
    }
    let mut tally = Tally::default();
    calls.join_all().await.into_iter().for_each(|result| tally.note(result));
    tally
}

/// Probes as an orchestrator asks them; how many were answered. None may fail or be late.
async fn probes(world: &World, time: Duration) -> usize {
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < time {
        let asked = async {
            for path in ["/livez", "/readyz"] {
                get_ok(&world.admin, path).await.unwrap();
            }
            if let Some(alive) = &world.alive {
                get_ok(alive, "/alive").await.unwrap();
            }
        };
        tokio::time::timeout(SOON, asked).await.expect("a probe is not late");
        answered += 1;
        tokio::time::sleep(50 * MS).await;
    }
    answered
}

/// Three times what there is room for, of each priority some.
async fn three_times_too_many(world: World) {
    // The latency of nobody waiting is measured.
    let calm = calm(&world.call, 2_000 * MS).await;
    assert_eq!((calm.refused, calm.failed.len()), (0, 0), "{:?}", calm.failed);
    assert_eq!(world.workshop.book.lock().p99(), 1);

    world.workshop.turn_the_page();
    let (sheddable, critical) = (CAPACITY, CAPACITY / 10);
    let normal = 3 * CAPACITY - sheddable - critical;
    let of = |per_second, priority| crowd(&world.call, per_second, CROWD, priority);
    let goodput = async {
        tokio::time::sleep(CROWD).await;
        world.workshop.book.lock().goodput()
    };
    let (sheddable, normal, critical, goodput, probes) = tokio::join!(
        of(sheddable, Priority::Sheddable),
        of(normal, Priority::Normal),
        of(critical, Priority::Critical),
        goodput,
        probes(&world, CROWD),
    );
    for tally in [&sheddable, &normal, &critical] {
        assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    }
    let p99 = world.workshop.book.lock().p99();
    assert!(p99 <= 3, "the 99th of 100 took {p99} times what it takes alone");
    assert!(goodput >= 0.8, "{goodput} of the peak");
    // The important goes through, what can be left out makes the room.
    let refused = [&sheddable, &normal].map(|tally| tally.refused);
    let shares = [&sheddable, &normal, &critical].map(Tally::share);
    let [sheddable, normal, critical] = shares;
    let in_order = critical >= 0.75 && critical >= 1.5 * normal && sheddable <= 0.9 * normal;
    assert!(in_order, "answered: {shares:?}");
    assert!(probes >= 5, "{probes} probes");

    let metrics = world.service.env.metrics().encode();
    for (priority, refused) in [("sheddable", refused[0]), ("normal", refused[1])] {
        let series = metrics.lines().find(|line| {
            line.starts_with("server_shed_calls_total")
                && line.contains(&format!("priority=\"{priority}\""))
        });
        let count = series.and_then(|line| line.rsplit(' ').next()).unwrap();
        assert_eq!(count, refused.to_string(), "{series:?}");
    }
    world.service.stop().await;
}

/// The same without: every call is taken, and soon each answer comes too late.
async fn nothing_is_refused(world: World) {
    let tally = crowd(&world.call, 3 * CAPACITY, 2_000 * MS, Priority::Normal).await;
    assert_eq!((tally.refused, tally.failed.len()), (0, 0), "{:?}", tally.failed);
    let p99 = world.workshop.book.lock().p99();
    assert!(p99 > 3, "the load is one: the 99th of 100 took {p99} times what it takes alone");
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_too_many_calls_are_answered_in_time_or_refused_over_http() {
    let shedding = World::over_http(shedding()).await;
    let taking = World::over_http(AdmissionConfig::default()).await;
    tokio::join!(three_times_too_many(shedding), nothing_is_refused(taking));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_too_many_calls_are_answered_in_time_or_refused_over_grpc() {
    three_times_too_many(World::over_grpc(shedding()).await).await;
}
