//! What a breaker and a rate limit cost a call, beside others: a line for each figure.
//!
//! `cargo xtask bench resilience --json [beginning of a name]...`
//!
//! All breakers guard the same future that is ready at once, each in its own `async` form, shared
//! by 1, 8 or 64 tasks. The figure is the time of the run by its calls. Runs of the candidates
//! alternate, and the least of 25 counts: other work on the machine only ever adds.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::{collections::HashMap, future::Future, hint::black_box, time::Duration};

use chassis_resilience::{
    BoxError, BreakerSettings, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Classified,
    KeyedRateLimit, RateLimit,
};
use parking_lot::Mutex;
use recloser::{AsyncRecloser, Recloser};
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

// By its path, since this crate uses no other one of the workspace.
#[allow(dead_code, unreachable_pub, reason = "made for others too; this program needs a part")]
#[path = "../../chassis-test/src/figures.rs"]
mod figures;

use figures::{Asked, Figure};

const OPENING: &str = "breaker_opens_after_100k_successes";
const CALLS: u32 = 100_000;
const RUNS: usize = 25;
const KEYS: u64 = 1_000_000;
const MAX_KEYS: usize = 100_000;

fn main() {
    let asked = Asked::parse(std::env::args().skip(1), &["--quick"]);
    let wanted = asked.unwrap_or_else(|problem| panic!("{problem}"));
    wanted.print_head();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for tasks in [1, 8, 64] {
            breakers(&wanted, tasks).await;
        }
        opening(&wanted).await;
    });
    keys(&wanted);
}

async fn breakers(wanted: &Asked, tasks: u32) {
    let name = format!("breaker_call_{tasks}");
    if !wanted.wants(&name) {
        return;
    }
    let (mut bare, mut ours, mut failsafe) = (f64::MAX, f64::MAX, f64::MAX);
    let (mut recloser, mut resilience) = (f64::MAX, f64::MAX);
    for _ in 0..RUNS {
        bare = bare.min(spread(tasks, callee()).await);
        let breaker = CircuitBreaker::new("bench", BreakerSettings::default());
        let layer = CircuitBreakerLayer::new(breaker, Classified::errors());
        ours = ours.min(spread(tasks, layer.layer(callee())).await);
        failsafe =
            failsafe.min(spread(tasks, with_failsafe(failsafe::Config::new().build())).await);
        let breaker = AsyncRecloser::from(Recloser::custom().build());
        recloser = recloser.min(spread(tasks, with_recloser(breaker)).await);
        let layer =
            tower_resilience_circuitbreaker::CircuitBreakerLayer::builder().build().unwrap();
        resilience = resilience.min(spread(tasks, layer.layer(callee())).await);
    }
    wanted.print(&Figure::new(&name, ours, "ns", "failsafe", failsafe));
    wanted.print(&Figure::new(&name, ours, "ns", "recloser", recloser));
    wanted.print(&Figure::new(&name, ours, "ns", "tower-resilience", resilience));
    wanted.print(&Figure::new(&name, ours, "ns", "no breaker", bare));
}

fn callee() -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(|request: u32| std::future::ready(Ok::<u32, BoxError>(black_box(request))))
}

fn with_failsafe<B>(
    breaker: B,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send
where
    B: failsafe::futures::CircuitBreaker + Clone + Send + Sync + 'static,
{
    service_fn(move |request: u32| {
        let breaker = breaker.clone();
        async move {
            let call = std::future::ready(Ok::<u32, BoxError>(black_box(request)));
            breaker.call(call).await.map_err(|_| "failed".into())
        }
    })
}

fn with_recloser(
    breaker: AsyncRecloser,
) -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(move |request: u32| {
        let call = breaker.call(std::future::ready(Ok::<u32, BoxError>(black_box(request))));
        async move { call.await.map_err(|_| "failed".into()) }
    })
}

/// Nanoseconds a call, when `tasks` tasks share the calls.
async fn spread<S, E>(tasks: u32, service: S) -> f64
where
    S: Service<u32, Response = u32, Error = E> + Clone + Send + 'static,
    S::Future: Future<Output = Result<u32, E>> + Send,
    E: std::fmt::Debug + Send,
{
    let each = CALLS / tasks;
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let mut service = service.clone();
        running.spawn(async move {
            for request in 0..each {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
                black_box(service.call(request).await.expect("an answer"));
                if request % 256 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    running.join_all().await;
    began.elapsed().as_nanos() as f64 / f64::from(each * tasks)
}

/// How many failures it takes to open after 100 000 successes, each breaker with its defaults.
async fn opening(wanted: &Asked) {
    if !wanted.wants(OPENING) {
        return;
    }
    let breaker = CircuitBreaker::new("bench", BreakerSettings::default());
    let ours = failures_until_open(
        CircuitBreakerLayer::new(breaker, Classified::errors()).layer(service_fn(fails_if_odd)),
        |error: &BoxError| error.is::<CircuitOpen>(),
    );
    let layer = tower_resilience_circuitbreaker::CircuitBreakerLayer::builder().build().unwrap();
    let theirs = failures_until_open(layer.layer(service_fn(fails_if_odd)), |error| {
        matches!(error, tower_resilience_circuitbreaker::CircuitBreakerError::OpenCircuit)
    });
    let (ours, theirs) = (ours.await, theirs.await);
    wanted.print(&Figure::new(OPENING, ours, "failures", "tower-resilience", theirs));
}

async fn fails_if_odd(request: u32) -> Result<u32, BoxError> {
    if request.is_multiple_of(2) { Ok(request) } else { Err("failed".into()) }
}

async fn failures_until_open<S, E>(mut service: S, is_open: impl Fn(&E) -> bool) -> f64
where
    S: Service<u32, Response = u32, Error = E>,
{
    let mut failures = 0u32;
    for n in 0..400_000 {
        if std::future::poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
            break;
        }
        match service.call(u32::from(n >= 100_000)).await {
            Err(error) if is_open(&error) => break,
            Err(_) => failures += 1,
            Ok(_) => {}
        }
    }
    f64::from(failures)
}

/// A million keys, each once and then each again.
fn keys(wanted: &Asked) {
    if !wanted.wants("rate_limit_1m_keys") {
        return;
    }
    let before = resident_kib();
    let limits = KeyedRateLimit::new(RateLimit::per_minute(60), MAX_KEYS);
    let began = Instant::now();
    for key in (0..KEYS).chain(0..KEYS) {
        let _ = black_box(limits.check(black_box(key)));
    }
    let ours = began.elapsed().as_nanos() as f64 / (2 * KEYS) as f64;
    let ours_kib = resident_kib() - before;
    assert!(limits.keys() <= MAX_KEYS, "the table is bounded");

    // What a table that forgets nothing costs: the lock, the look-up and the instant.
    let before = resident_kib();
    let table = Mutex::new(HashMap::new());
    let began = Instant::now();
    for key in (0..KEYS).chain(0..KEYS) {
        let now = Instant::now();
        let arrival = *table.lock().entry(black_box(key)).or_insert(now);
        black_box(now.saturating_duration_since(arrival) > Duration::from_secs(1));
    }
    let plain = began.elapsed().as_nanos() as f64 / (2 * KEYS) as f64;
    let plain_kib = resident_kib() - before;
    wanted.print(&Figure::new("rate_limit_1m_keys", ours, "ns", "unbounded HashMap", plain));
    wanted.print(&Figure::new(
        "rate_limit_1m_keys_memory",
        ours_kib,
        "KiB",
        "unbounded HashMap",
        plain_kib.max(1.0),
    ));
}

fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
