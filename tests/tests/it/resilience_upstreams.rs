//! What a caller sees when endpoints fail, lag, hang, go and come back: counted, not timed.
//!
//! The endpoints are servers in this process that do what a test says and count what they get;
//! between them and the caller is nothing but the client's own stack. Where the outage of a whole
//! service is what is tested, the counting is done at the service: how much load a caller adds.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use chassis::{
    Error, Result,
    core::{Metrics, Operations},
    discovery::{
        BreakerConfig, ChaosConfig, ClientConfig, Discovery, Dns, DnsConfig, Endpoint, Lease,
        Registrar, Registry, Target,
    },
    http::{Client, Problem},
};
use chassis_test::{Direction, FaultProxy, eventually};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::Instant,
};

use crate::hello::SOON;

const MS: Duration = Duration::from_millis(1);

/// An endpoint that counts its calls. Ends with the test's runtime.
struct Upstream {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers with this status after this time.
    async fn answering(status: u16, after: Duration) -> Upstream {
        let status = StatusCode::from_u16(status).unwrap();
        Upstream::doing(move |_| async move {
            tokio::time::sleep(after).await;
            status
        })
        .await
    }

    async fn doing<F, Fut>(answer: F) -> Upstream
    where
        F: Fn(HeaderMap) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = StatusCode> + Send + 'static,
    {
        Upstream::doing_at(([127, 0, 0, 1], 0).into(), answer).await
    }

    async fn doing_at<F, Fut>(address: SocketAddr, answer: F) -> Upstream
    where
        F: Fn(HeaderMap) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = StatusCode> + Send + 'static,
    {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let handler = move |headers: HeaderMap| {
            counter.fetch_add(1, SeqCst);
            answer(headers)
        };
        let router = Router::new().route("/", get(handler));
        Upstream { address: serve_at(address, router).await, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

async fn serve(router: Router) -> SocketAddr {
    serve_at(([127, 0, 0, 1], 0).into(), router).await
}

async fn serve_at(address: SocketAddr, router: Router) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A client of these endpoints; they stay registered as long as it lives.
struct Caller {
    client: Client,
    metrics: Metrics,
    _leases: Vec<Lease>,
}

impl Caller {
    async fn of(addresses: impl IntoIterator<Item = SocketAddr>, config: &ClientConfig) -> Caller {
        let registry = Registry::new();
        let mut leases = Vec::new();
        for address in addresses {
            let target = Target::new("items", "http");
            leases.push(registry.register(target, Endpoint::new(address)).await.unwrap());
        }
        let metrics = Metrics::default();
        let client = Client::builder("items", &Discovery::in_process(registry))
            .config(config)
            .metrics(&metrics)
            .build()
            .unwrap();
        Caller { client, metrics, _leases: leases }
    }

    /// How often a circuit has changed to this state.
    fn transitions(&self, to: &str) -> u64 {
        let labels = [("service", "items"), ("protocol", "http"), ("to", to)];
        self.metrics.counter("client_breaker_transitions", "", &labels).get()
    }
}

async fn call(client: &Client) -> Result<()> {
    client.get("/").send().await?.error_for_status().await.map(drop)
}

/// How many of so many calls fail, `at_a_time` of them under way, and how long each took.
async fn failures(client: &Client, calls: usize, at_a_time: usize) -> (usize, Vec<Duration>) {
    let left = AtomicUsize::new(calls);
    let failed = AtomicUsize::new(0);
    let times = Mutex::new(Vec::with_capacity(calls));
    join_all((0..at_a_time).map(|_| async {
        while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            let begun = Instant::now();
            if call(client).await.is_err() {
                failed.fetch_add(1, SeqCst);
            }
            times.lock().push(begun.elapsed());
        }
    }))
    .await;
    let mut times = times.into_inner();
    times.sort_unstable();
    (failed.into_inner(), times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_fast_gets_less_than_two_in_a_hundred() {
    let bad = Upstream::answering(503, MS).await;
    let good = [Upstream::answering(200, 2 * MS).await, Upstream::answering(200, 2 * MS).await];
    let addresses = [bad.address, good[0].address, good[1].address];
    let caller = Caller::of(addresses, &ClientConfig::default()).await;
    let (failed, _) = failures(&caller.client, 4_000, 16).await;
    assert!(bad.calls() > 0, "it is tried");
    assert!(bad.calls() < 80, "{} of 4000", bad.calls());
    assert!(failed < 20, "{failed} of 4000 failed");
}

/// What that means for the tail is in `tail`, under a clock that this machine does not disturb.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_ten_times_slower_gets_few_calls() {
    const CALLS: usize = 600;
    // Ten times this is more than a hiccup of a busy machine.
    const USUAL: Duration = Duration::from_millis(50);
    let slow = Upstream::answering(200, 10 * USUAL).await;
    let others = [Upstream::answering(200, USUAL).await, Upstream::answering(200, USUAL).await];
    let addresses = [slow.address, others[0].address, others[1].address];
    let caller = Caller::of(addresses, &ClientConfig::default()).await;
    let (failed, _) = failures(&caller.client, CALLS, 6).await;
    assert_eq!(failed, 0);
    let calls = slow.calls();
    // A coin would send it 200.
    assert!((1..CALLS / 8).contains(&calls), "{calls} of {CALLS}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_accepts_and_never_answers_is_left() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mute = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, SeqCst);
            held.push(stream);
        }
    });
    let good = [Upstream::answering(200, MS).await, Upstream::answering(200, MS).await];
    let config = ClientConfig { attempt_timeout: 300 * MS, ..ClientConfig::default() };
    let caller = Caller::of([mute, good[0].address, good[1].address], &config).await;
    let (failed, _) = failures(&caller.client, 2_000, 8).await;
    assert_eq!(failed, 0);
    let accepted = accepted.load(SeqCst);
    assert!((1..20).contains(&accepted), "{accepted} of 2000 went to the mute one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_them_gone_without_a_fin_are_not_missed() {
    let good = Upstream::answering(200, MS).await;
    let mut proxies = Vec::new();
    for _ in 0..4 {
        proxies.push(FaultProxy::start(good.address.to_string()).await);
    }
    let config = ClientConfig {
        attempt_timeout: 300 * MS,
        breaker: BreakerConfig { consecutive_failures: 3, ..BreakerConfig::default() },
        ..ClientConfig::default()
    };
    let caller = Caller::of(proxies.iter().map(FaultProxy::address), &config).await;
    assert_eq!(failures(&caller.client, 400, 8).await.0, 0);
    for proxy in &proxies[..2] {
        proxy.silence(Direction::ToServer);
        proxy.silence(Direction::ToClient);
    }
    let (failed, times) = failures(&caller.client, 2_000, 8).await;
    assert_eq!(failed, 0);
    let waited = times.iter().filter(|time| **time >= config.attempt_timeout).count();
    assert!(waited < 40, "{waited} of 2000 met one that was gone");
}

/// Each tier asks the next with retries of its own, and the last is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_tiers_that_retry_send_a_dead_bottom_hardly_more_calls() {
    // Few enough that no circuit sees a thousand failures in a row.
    const CALLS: usize = 500;
    // Only the budget is tested: nothing else may hold calls back or pay for them.
    let config = ClientConfig {
        max_attempts: 3,
        retry_budget: 0.2,
        retry_reserve: 0,
        backoff: MS,
        backoff_max: MS,
        breaker: BreakerConfig {
            consecutive_failures: 1_000,
            min_calls: 100_000,
            ..BreakerConfig::default()
        },
        ..ClientConfig::default()
    };
    let bottom = Upstream::answering(503, Duration::ZERO).await;
    let mut below = Caller::of([bottom.address], &config).await;
    for _ in 0..2 {
        let client = below.client.clone();
        let tier = Router::new().route(
            "/",
            get(move || {
                let client = client.clone();
                async move { call(&client).await.map_err(Problem::from) }
            }),
        );
        let above = Caller::of([serve(tier).await], &config).await;
        let below_leases = std::mem::replace(&mut below, above);
        // Its endpoints stay registered.
        std::mem::forget(below_leases);
    }
    let (failed, _) = failures(&below.client, CALLS, 16).await;
    assert_eq!(failed, CALLS);
    let load = bottom.calls() as f64 / CALLS as f64;
    assert!((1.0..=1.73).contains(&load), "{load} times the calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_comes_within_twice_the_open_time_and_without_a_herd() {
    const OPEN: Duration = Duration::from_millis(800);
    const TRIALS: u32 = 3;
    let down = Arc::new(AtomicBool::new(true));
    let counters: [Arc<AtomicUsize>; 3] = Default::default();
    let [under_way, answered, peak] = counters.clone();
    let upstream = {
        let down = Arc::clone(&down);
        Upstream::doing(move |_| {
            let (down, [under_way, answered, peak]) = (Arc::clone(&down), counters.clone());
            async move {
                if down.load(SeqCst) {
                    return StatusCode::SERVICE_UNAVAILABLE;
                }
                let now = under_way.fetch_add(1, SeqCst) + 1;
                // Before the answers that close it, the circuit cannot be closed.
                if answered.load(SeqCst) < TRIALS as usize {
                    peak.fetch_max(now, SeqCst);
                }
                tokio::time::sleep(20 * MS).await;
                under_way.fetch_sub(1, SeqCst);
                answered.fetch_add(1, SeqCst);
                StatusCode::OK
            }
        })
        .await
    };
    let breaker = BreakerConfig {
        open_for: OPEN,
        half_open_permits: TRIALS,
        successes_to_close: TRIALS,
        ..BreakerConfig::default()
    };
    let config = ClientConfig { breaker, max_attempts: 1, ..ClientConfig::default() };
    let caller = Caller::of([upstream.address], &config).await;
    eventually("the circuit opens", SOON, async || {
        call(&caller.client).await.unwrap_err();
        (caller.transitions("open") > 0).then_some(())
    })
    .await;
    down.store(false, SeqCst);
    let healed = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let (client, metrics) = (caller.client.clone(), caller.metrics.clone());
        callers.spawn(async move {
            let labels = [("service", "items"), ("protocol", "http"), ("to", "closed")];
            let closed = metrics.counter("client_breaker_transitions", "", &labels);
            while closed.get() == 0 {
                if call(&client).await.is_err() {
                    tokio::time::sleep(MS).await;
                }
            }
        });
    }
    tokio::time::timeout(SOON, callers.join_all()).await.expect("it should be back");
    let took = healed.elapsed();
    assert!(took <= 2 * OPEN, "{took:?} for an open time of {OPEN:?}");
    let peak = peak.load(SeqCst);
    assert!((1..=TRIALS as usize).contains(&peak), "{peak} of 32 callers at a time");
    assert!(answered.load(SeqCst) >= TRIALS as usize && under_way.load(SeqCst) < 32);
    let trials = caller.transitions("half_open");
    assert_eq!(trials, 1, "the first trial is the one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_instances_that_come_and_go_drop_no_call() {
    let mut addresses = Vec::new();
    for _ in 0..100 {
        addresses.push(Upstream::answering(200, MS).await.address);
    }
    let registry = Registry::new();
    let client = Client::new("items", &Discovery::in_process(registry.clone()));
    let register = async |address: SocketAddr| {
        registry.register(Target::new("items", "http"), Endpoint::new(address)).await.unwrap()
    };
    let mut leases: Vec<Option<Lease>> = Vec::new();
    for address in &addresses {
        leases.push(Some(register(*address).await));
    }
    let calling = {
        let client = client.clone();
        tokio::spawn(async move { failures(&client, 6_000, 16).await.0 })
    };
    let mut turn = 0;
    while !calling.is_finished() {
        // All but one leave and come back, one after the other, at any time.
        let index = 1 + turn * 37 % 99;
        leases[index] = match leases[index].take() {
            Some(lease) => {
                drop(lease);
                None
            }
            None => Some(register(addresses[index]).await),
        };
        turn += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(calling.await.unwrap(), 0, "after {turn} changes");
    assert!(turn > 100, "{turn} changes");
}

/// A name server that knows one name and can fall silent.
struct NameServer {
    address: SocketAddr,
    answers: Arc<Mutex<Option<Vec<Ipv4Addr>>>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start(answers: Vec<Ipv4Addr>) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = NameServer {
            address: socket.local_addr().unwrap(),
            answers: Arc::new(Mutex::new(Some(answers))),
            asked: Arc::default(),
        };
        let (answers, asked) = (Arc::clone(&server.answers), Arc::clone(&server.asked));
        tokio::spawn(async move {
            let mut buffer = [0; 1_024];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                asked.fetch_add(1, SeqCst);
                let answer =
                    answers.lock().as_ref().map(|known| dns_answer(&buffer[..length], known));
                if let Some(answer) = answer {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        server
    }
}

/// The answer to a question for addresses (RFC 1035, 4.1), with a TTL of zero.
fn dns_answer(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let mut answer = query[..12 + name + 5].to_vec();
    // An answer, recursion available; one question, so many answers, nothing else.
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        // The name of the question, A, IN, TTL 0, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// A minute at the usual pace, one question a second, is three seconds at twenty a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_down_for_a_minute_fails_no_call() {
    const TTL: Duration = Duration::from_millis(50);
    const DOWN: Duration = Duration::from_secs(3);
    // One port for all of them, as addresses in DNS have it.
    let first = Upstream::answering(200, MS).await;
    let port = first.address.port();
    let ok = |_| async { StatusCode::OK };
    let second = Upstream::doing_at(([127, 0, 0, 2], port).into(), ok).await;
    let names = NameServer::start(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]).await;
    let dns = Dns::new(&DnsConfig {
        servers: vec![names.address.to_string()],
        name: "{service}.test.".to_owned(),
        ports: [("http".to_owned(), port)].into(),
        min_ttl: TTL,
        max_ttl: TTL,
        timeout: 4 * TTL,
    })
    .unwrap();
    let client = Client::new("items", &Discovery::with_resolver(dns));
    assert_eq!(failures(&client, 100, 4).await.0, 0);

    names.answers.lock().take();
    let (down, asked) = (Instant::now(), names.asked.load(SeqCst));
    let before = [first.calls(), second.calls()];
    let (mut calls, mut failed) = (0, 0);
    while down.elapsed() < DOWN {
        failed += failures(&client, 100, 4).await.0;
        calls += 100;
    }
    assert_eq!(failed, 0, "of {calls}");
    let asked = names.asked.load(SeqCst) - asked;
    assert!(asked >= 3, "it was asked {asked} times and said nothing");
    for (upstream, before) in [&first, &second].iter().zip(before) {
        assert!(upstream.calls() > before, "both are still called");
    }

    // It is heard when it is back: one of the two is gone.
    *names.answers.lock() = Some(vec![[127, 0, 0, 2].into()]);
    eventually("the first is left", SOON, async || {
        let before = first.calls();
        assert_eq!(failures(&client, 50, 4).await.0, 0);
        (first.calls() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_repetition_says_that_it_is_one() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let headers_seen = Arc::clone(&seen);
    let upstream = Upstream::doing(move |headers| {
        let before = headers.get("x-previous-attempts").map(|v| v.to_str().unwrap().to_owned());
        let mut seen = headers_seen.lock();
        seen.push(before);
        let status = if seen.len() < 3 { 503 } else { 200 };
        async move { StatusCode::from_u16(status).unwrap() }
    })
    .await;
    let config = ClientConfig { backoff: MS, ..ClientConfig::default() };
    let caller = Caller::of([upstream.address], &config).await;
    call(&caller.client).await.unwrap();
    assert_eq!(*seen.lock(), [None, Some("1".to_owned()), Some("2".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_asked_for_twice() {
    let turn = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turn);
    // Each fiftieth call takes a second, wherever it goes.
    let answer = move |_| {
        let late = counter.fetch_add(1, SeqCst) % 50 == 49;
        async move {
            tokio::time::sleep(if late { 1_000 * MS } else { 2 * MS }).await;
            StatusCode::OK
        }
    };
    let endpoints = [Upstream::doing(answer.clone()).await, Upstream::doing(answer).await];
    let mut config = ClientConfig::default();
    config.hedge.enabled = true;
    let caller = Caller::of(endpoints.iter().map(|e| e.address), &config).await;
    // What the hedge has to know first.
    failures(&caller.client, 200, 4).await;
    let before = turn.load(SeqCst);
    let (failed, times) = failures(&caller.client, 1_000, 4).await;
    assert_eq!(failed, 0);
    let late = times.iter().filter(|time| **time >= 900 * MS).count();
    assert!(late <= 4, "{late} of about 20 late answers were waited for");
    let sent = turn.load(SeqCst) - before;
    assert!(sent <= 1_300, "{sent} calls for 1000: more than the budget allows");
}

#[tokio::test]
async fn faults_are_injected_from_the_admin_port_if_the_configuration_says_so() {
    let upstream = Upstream::answering(200, Duration::ZERO).await;
    let operations = Operations::default();
    let chaos = ChaosConfig { enabled: true }.chaos(&operations);
    let registry = Registry::new();
    let lease = registry
        .register(Target::new("items", "http"), Endpoint::new(upstream.address))
        .await
        .unwrap();
    let config = ClientConfig { max_attempts: 1, ..ClientConfig::default() };
    let client = Client::builder("items", &Discovery::in_process(registry))
        .config(&config)
        .chaos(&chaos)
        .build()
        .unwrap();
    let inject_at = async |target: &str, fault: &str| {
        let rule = json!({ "name": "a", "target": target, "fault": fault });
        operations.run("chaos/set", rule, true).await.unwrap();
        call(&client).await.map_err(|error: Error| error.reason().to_owned())
    };
    let inject = async |fault: &str| inject_at("items/http", fault).await;
    let injected = Err("FAULT_INJECTED".to_owned());
    assert_eq!(inject("error").await, injected);
    assert_eq!(inject_at("items/http/", "error").await, injected);
    assert_eq!(upstream.calls(), 0, "it was not sent");
    assert_eq!(inject_at("items/http/elsewhere", "error").await, Ok(()), "another route");
    assert_eq!(inject("duplicate").await, Ok(()));
    assert_eq!(inject("latency").await, Ok(()));
    eventually("both of two", SOON, async || (upstream.calls() == 4).then_some(())).await;
    operations.run("chaos/clear", json!({}), true).await.unwrap();
    call(&client).await.unwrap();
    drop(lease);
}
