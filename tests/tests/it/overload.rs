//! More calls than there is room for: what is let in is answered in time, and the rest is told so.
//!
//! A server is called here with all that stands around its handlers but its socket, under a
//! paused clock: so each figure is one of the admission, and none of what else this machine
//! does. What a server has room for is made: a handler has a few places, each call holds one for
//! a while, the others wait. Calls come at random, as they do from a crowd, and wait for nobody.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http,
    routing::get,
};
use chassis::{
    BoxFuture, Env,
    admission::{AdmissionConfig, RoutePriority, ShedConfig},
    core::{Priority, propagation::PRIORITY},
    grpc::from_status,
    http::RETRY_PUSHBACK_MS,
};
use parking_lot::Mutex;
use shop_contracts::ordering::v1::{
    GetOrderRequest, Order,
    ordering_client::OrderingClient,
    ordering_server::{Ordering, OrderingServer},
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tonic::{Request, Response, Status, service::Routes};
use tower::ServiceExt;

use crate::service::{grpc, http as http_config};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const CALLER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);

/// What a server has room for: so many calls at a time, each for so long, a quarter more or less.
/// And how long the crowd stays: long enough that the least latency is measured anew, with
/// hardly anybody let in meanwhile.
#[derive(Clone, Copy, Debug)]
struct Room {
    places: usize,
    work: Duration,
    crowd: Duration,
}

const SMALL: Room =
    Room { places: 8, work: Duration::from_millis(300), crowd: Duration::from_secs(80) };
const LARGE: Room =
    Room { places: 32, work: Duration::from_millis(800), crowd: Duration::from_secs(80) };

#[derive(Clone)]
struct Workshop {
    work: Duration,
    places: Arc<Semaphore>,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Workshop {
    fn new(room: Room) -> Workshop {
        Workshop {
            work: room.work,
            places: Arc::new(Semaphore::new(room.places)),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(7))),
        }
    }

    async fn work(&self) {
        let _place = self.places.acquire().await.unwrap();
        let part = 0.75 + self.random.lock().f64() / 2.0;
        tokio::time::sleep(self.work.mul_f64(part)).await;
    }
}

#[tonic::async_trait]
impl Ordering for Workshop {
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        self.work().await;
        Ok(Response::new(Order::default()))
    }
}

/// Makes a call of this priority; an error is its reason.
type Call = Arc<dyn Fn(Priority) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A server without a socket.
struct World {
    env: Env,
    call: Call,
    /// A route that is exempt, as probes are.
    alive: Option<Call>,
}

/// All as it is by default, but on.
fn shedding() -> AdmissionConfig {
    AdmissionConfig {
        trusted_peers: vec!["127.0.0.0/8".to_owned()],
        priorities: BTreeMap::from([("/alive".to_owned(), RoutePriority::Exempt)]),
        shed: ShedConfig { enabled: true, ..ShedConfig::default() },
        ..AdmissionConfig::default()
    }
}

/// Nobody gives up: what comes late should be seen.
const PATIENCE: Duration = Duration::from_secs(600);

fn over_http(room: Room, admission: AdmissionConfig) -> World {
    let env = Env::test("items");
    let workshop = Workshop::new(room);
    let work = move || async move { workshop.work().await };
    let router = Router::new().route("/", get(work)).route("/alive", get(|| async {}));
    let config =
        chassis::http::ServerConfig { admission, request_timeout: PATIENCE, ..http_config() };
    let router = chassis::http::Server::new(&config, router).into_router(&env).unwrap();
    let get = |path: &'static str| -> Call {
        let router = router.clone();
        Arc::new(move |priority: Priority| {
            let request = http::Request::get(path)
                .header(http::header::HOST, "items")
                .header(PRIORITY, priority.as_str())
                .extension(ConnectInfo(CALLER))
                .body(Body::empty())
                .unwrap();
            let answer = router.clone().oneshot(request);
            Box::pin(async move {
                let answer = answer.await.unwrap();
                if answer.status().is_success() {
                    return Ok(());
                }
                assert!(answer.headers().contains_key(RETRY_PUSHBACK_MS), "{answer:?}");
                let problem = to_bytes(answer.into_body(), 10_000).await.unwrap();
                let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
                Err(problem["reason"].as_str().unwrap().to_owned())
            })
        })
    };
    World { env, call: get("/"), alive: Some(get("/alive")) }
}

fn over_grpc(room: Room, admission: AdmissionConfig) -> World {
    let env = Env::test("items");
    let routes = Routes::new(OrderingServer::new(Workshop::new(room)));
    let config = chassis::grpc::ServerConfig { admission, request_timeout: PATIENCE, ..grpc() };
    let server = chassis::grpc::Server::new(&config, routes);
    let client = OrderingClient::new(server.into_service(&env, Some(CALLER)).unwrap());
    let call: Call = Arc::new(move |priority: Priority| {
        let mut client = client.clone();
        let mut request = Request::new(GetOrderRequest::default());
        request.metadata_mut().insert(PRIORITY, priority.as_str().parse().unwrap());
        Box::pin(async move {
            let answer = client.get_order(request).await;
            answer.map(drop).map_err(|status| from_status(status).reason().to_owned())
        })
    });
    World { env, call, alive: None }
}

/// How the calls of one priority ended.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
}

impl Tally {
    fn share(&self) -> f64 {
        self.answered as f64 / (self.answered + self.refused) as f64
    }
}

/// How calls ended: who was answered, how long that took, and how many answers there were in the
/// time in which calls came.
#[derive(Debug, Default)]
struct Seen {
    by: BTreeMap<&'static str, Tally>,
    times: Vec<Duration>,
    in_time: usize,
}

impl Seen {
    fn note(&mut self, ended: Ended, until: Instant) {
        let tally = self.by.entry(ended.priority.as_str()).or_default();
        match ended.result.as_ref().map_err(String::as_str) {
            Ok(()) => {
                tally.answered += 1;
                self.times.push(ended.at - ended.begun);
                self.in_time += usize::from(ended.at <= until);
            }
            Err("SERVER_OVERLOADED") => {
                assert_eq!(ended.at, ended.begun, "a refusal does not wait");
                tally.refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn p99(&mut self) -> Duration {
        self.times.sort_unstable();
        self.times[self.times.len() * 99 / 100]
    }
}

struct Ended {
    priority: Priority,
    begun: Instant,
    at: Instant,
    result: Result<(), String>,
}

async fn one(call: Call, priority: Priority) -> Ended {
    let begun = Instant::now();
    let result = call(priority).await;
    Ended { priority, begun, at: Instant::now(), result }
}

/// Fewer callers than there are places, each with one call at a time: nobody waits. How many
/// calls a second all places could do, and the 99th percentile of the times.
async fn calm(call: &Call, room: Room) -> (f64, Duration) {
    // The limit begins at 20, of which normal calls may use 18, and nothing moves it yet.
    let callers_at_a_time = room.places.min(16);
    let until = Instant::now() + 20 * SECOND;
    let mut callers = JoinSet::new();
    for _ in 0..callers_at_a_time {
        let call = Arc::clone(call);
        callers.spawn(async move {
            let mut ended = Vec::new();
            while Instant::now() < until {
                let call = one(Arc::clone(&call), Priority::Normal).await;
                assert_eq!(call.result, Ok(()));
                ended.push(call);
            }
            ended
        });
    }
    let mut seen = Seen::default();
    for ended in callers.join_all().await.into_iter().flatten() {
        seen.note(ended, until);
    }
    let each = seen.in_time as f64 / 20.0 / callers_at_a_time as f64;
    (each * room.places as f64, seen.p99())
}

/// So many calls a second, at random and of all priorities, whether the ones before were answered
/// or not: a third can be left out, a thirtieth is critical.
async fn crowd(call: &Call, per_second: f64, time: Duration, seed: u64) -> Seen {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut next, until) = (Instant::now(), Instant::now() + time);
    let (mut calls, mut seen) = (JoinSet::new(), Seen::default());
    loop {
        next += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second);
        if next >= until {
            break;
        }
        tokio::time::sleep_until(next).await;
        let priority = match random.u32(0..30) {
            0 => Priority::Critical,
            1..=10 => Priority::Sheddable,
            _ => Priority::Normal,
        };
        calls.spawn(one(Arc::clone(call), priority));
        while let Some(ended) = calls.try_join_next() {
            seen.note(ended.unwrap(), until);
        }
    }
    for ended in calls.join_all().await {
        seen.note(ended, until);
    }
    seen
}

/// Asks a probe twenty times a second, for as long as it is polled. None may fail or wait.
async fn probes(alive: Option<Call>) {
    while let Some(alive) = &alive {
        let asked = Instant::now();
        alive(Priority::Sheddable).await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO, "a probe waits for nobody");
        tokio::time::sleep(50 * MS).await;
    }
    std::future::pending().await
}

/// Three times what there is room for.
async fn three_times_too_many(world: World, room: Room, seed: u64) {
    let (peak, unloaded) = calm(&world.call, room).await;
    let crowd = crowd(&world.call, 3.0 * peak, room.crowd, seed);
    let mut seen = tokio::select! {
        seen = crowd => seen,
        () = probes(world.alive.clone()) => unreachable!("it ends by a panic alone"),
    };
    let p99 = seen.p99();
    let goodput = seen.in_time as f64 / room.crowd.as_secs_f64() / peak;
    let [sheddable, normal, critical] =
        ["sheddable", "normal", "critical"].map(|name| seen.by[name].share());
    let figures = format!(
        "{room:?}: goodput {goodput:.3} of {peak:.1}/s, p99 {p99:?} beside {unloaded:?}, answered: \
         critical {critical:.3}, normal {normal:.3}, sheddable {sheddable:.3}"
    );
    assert!(goodput >= 0.8, "{figures}");
    assert!(p99 <= 3 * unloaded, "{figures}");
    // The important goes through, what can be left out makes the room.
    assert!(critical >= 0.96 && normal < 0.5 && sheddable < normal, "{figures}");

    let metrics = world.env.metrics().encode();
    for (priority, tally) in &seen.by {
        let label = format!("priority=\"{priority}\"");
        let series = metrics
            .lines()
            .find(|line| line.starts_with("server_shed_calls_total") && line.contains(&label));
        let count = series.and_then(|line| line.rsplit(' ').next()).unwrap();
        assert_eq!(count, tally.refused.to_string(), "{series:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn three_times_too_many_calls_are_answered_in_time_or_refused_over_http() {
    three_times_too_many(over_http(SMALL, shedding()), SMALL, 1).await;
}

#[tokio::test(start_paused = true)]
async fn so_it_is_where_there_is_more_room() {
    three_times_too_many(over_http(LARGE, shedding()), LARGE, 2).await;
}

#[tokio::test(start_paused = true)]
async fn three_times_too_many_calls_are_answered_in_time_or_refused_over_grpc() {
    three_times_too_many(over_grpc(SMALL, shedding()), SMALL, 3).await;
}

/// The same without: every call is taken, and soon each answer comes too late. So the load is one.
#[tokio::test(start_paused = true)]
async fn without_it_each_of_three_times_too_many_calls_comes_too_late() {
    for world in
        [over_http(SMALL, AdmissionConfig::default()), over_grpc(SMALL, AdmissionConfig::default())]
    {
        let (peak, unloaded) = calm(&world.call, SMALL).await;
        let mut seen = crowd(&world.call, 3.0 * peak, 20 * SECOND, 4).await;
        assert!(seen.by.values().all(|tally| tally.refused == 0));
        let p99 = seen.p99();
        assert!(p99 > 30 * unloaded, "p99 {p99:?} beside {unloaded:?}");
        let early = seen.times.iter().filter(|time| **time <= 3 * unloaded).count();
        assert!(early < seen.times.len() / 10, "{early} of {}", seen.times.len());
    }
}
