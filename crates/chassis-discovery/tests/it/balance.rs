//! The balancer as a client sees it: whom it calls, and what it says when it cannot.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chassis_core::{BoxError, BoxFuture, Metrics};
use chassis_discovery::{
    AllOpen, Balance, BalanceSettings, Endpoint, NoEndpoints, Target, Unreachable, Updates,
    provably_not_sent,
};
use chassis_resilience::breaker::BreakerSettings;
use chassis_resilience::{Class, Classify};
use parking_lot::Mutex;
use tower::{Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// What an endpoint does, by port.
#[derive(Clone, Copy)]
enum Behaviour {
    Answer(Duration),
    Fail(Duration),
    Hang,
}

#[derive(Clone, Default)]
struct World {
    behaviour: Arc<Mutex<HashMap<u16, Behaviour>>>,
    calls: Arc<Mutex<HashMap<u16, usize>>>,
}

impl World {
    fn set(&self, port: u16, behaviour: Behaviour) {
        self.behaviour.lock().insert(port, behaviour);
    }

    fn calls(&self, port: u16) -> usize {
        self.calls.lock().get(&port).copied().unwrap_or(0)
    }
}

#[derive(Clone)]
struct Server {
    port: u16,
    world: World,
}

impl Service<()> for Server {
    type Response = Result<u16, u16>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let (port, world) = (self.port, self.world.clone());
        Box::pin(async move {
            *world.calls.lock().entry(port).or_default() += 1;
            let behaviour = world.behaviour.lock().get(&port).copied();
            match behaviour {
                Some(Behaviour::Answer(after)) => {
                    tokio::time::sleep(after).await;
                    Ok(Ok(port))
                }
                Some(Behaviour::Fail(after)) => {
                    tokio::time::sleep(after).await;
                    Ok(Err(port))
                }
                Some(Behaviour::Hang) => std::future::pending().await,
                None => Ok(Ok(port)),
            }
        })
    }
}

/// The transport knows that an answer may be a failure.
fn inner_errors() -> impl Classify<Result<u16, u16>, Infallible> {
    |result: Result<&Result<u16, u16>, &Infallible>| match result {
        Ok(Ok(_)) => Class::Success,
        _ => Class::Failure,
    }
}

fn endpoints(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
    ports.into_iter().map(|port| Endpoint::new(([127, 0, 0, 1], port).into())).collect()
}

fn settings() -> BalanceSettings {
    BalanceSettings {
        breaker: BreakerSettings {
            consecutive_failures: 5,
            // With its jitter far longer than any test here.
            open_for: 600 * SECOND,
            open_max: 600 * SECOND,
            ..BreakerSettings::default()
        },
        hung_after: SECOND,
        // Far longer than a busy machine needs to try a connection again.
        connect_timeout: 20 * SECOND,
        ..BalanceSettings::default()
    }
}

fn balance(
    updates: Updates,
    world: &World,
) -> Balance<Server, impl Classify<Result<u16, u16>, Infallible> + use<>, ()> {
    let world = world.clone();
    Balance::new(
        Target::new("greeter", "http"),
        updates,
        move |endpoint| Server { port: endpoint.address.port(), world: world.clone() },
        inner_errors(),
        |()| None,
        settings(),
    )
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_walked_past() {
    let world = World::default();
    world.set(1, Behaviour::Fail(Duration::ZERO));
    world.set(2, Behaviour::Answer(Duration::from_millis(50)));
    let metrics = Metrics::default();
    let balance = balance(Updates::fixed(endpoints([1, 2])), &world);
    balance.bind(&metrics);
    let mut answers = 0;
    // Long enough that the failing one is starved, and so due, many times.
    for _ in 0..1_200 {
        tokio::time::advance(SECOND / 5).await;
        if balance.clone().oneshot(()).await.unwrap().is_ok() {
            answers += 1;
        }
    }
    assert_eq!(world.calls(1), 5, "five failures open it, and then nothing");
    assert_eq!(answers, 1_195);
    let text = metrics.encode();
    assert!(text.contains("to=\"open\"} 1"), "{text}");
    assert!(
        text.contains("client_balancer_endpoints{protocol=\"http\",service=\"greeter\"} 2"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cured_endpoint_is_let_in_again() {
    let world = World::default();
    world.set(1, Behaviour::Fail(Duration::ZERO));
    let balance = balance(Updates::fixed(endpoints([1])), &world);
    for _ in 0..5 {
        balance.clone().oneshot(()).await.unwrap().unwrap_err();
    }
    let error = balance.clone().oneshot(()).await.unwrap_err();
    let open = error.downcast_ref::<AllOpen>().unwrap();
    assert!(open.circuit.retry_in > SECOND && open.circuit.retry_in <= 600 * SECOND, "{open:?}");
    assert!(provably_not_sent(&*error));
    assert_eq!(world.calls(1), 5, "the sixth was not sent");

    world.set(1, Behaviour::Answer(Duration::ZERO));
    tokio::time::advance(open.circuit.retry_in + SECOND).await;
    for _ in 0..10 {
        assert_eq!(balance.clone().oneshot(()).await.unwrap(), Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_off_by_a_timeout_counts_against_the_endpoint() {
    let world = World::default();
    world.set(1, Behaviour::Hang);
    let balance = balance(Updates::fixed(endpoints([1])), &world);
    for _ in 0..5 {
        let call = balance.clone().oneshot(());
        assert!(tokio::time::timeout(2 * SECOND, call).await.is_err());
    }
    let error = balance.oneshot(()).await.unwrap_err();
    assert!(error.is::<AllOpen>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_early_says_nothing_against_the_endpoint() {
    let world = World::default();
    world.set(1, Behaviour::Hang);
    let balance = balance(Updates::fixed(endpoints([1])), &world);
    for _ in 0..50 {
        let call = balance.clone().oneshot(());
        assert!(tokio::time::timeout(SECOND / 10, call).await.is_err());
    }
    world.set(1, Behaviour::Answer(Duration::ZERO));
    assert_eq!(balance.oneshot(()).await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn who_fails_fast_gets_a_trickle() {
    let world = World::default();
    world.set(1, Behaviour::Fail(Duration::from_millis(1)));
    for port in 2..=4 {
        world.set(port, Behaviour::Answer(Duration::from_millis(20)));
    }
    let balance = Balance::new(
        Target::new("greeter", "http"),
        Updates::fixed(endpoints(1..=4)),
        {
            let world = world.clone();
            move |endpoint: &Endpoint| Server {
                port: endpoint.address.port(),
                world: world.clone(),
            }
        },
        inner_errors(),
        |()| None,
        BalanceSettings {
            breaker: BreakerSettings {
                consecutive_failures: u32::MAX,
                min_calls: u32::MAX,
                ..BreakerSettings::default()
            },
            ..settings()
        },
    );
    for _ in 0..1_000 {
        // Whether it fails is what the endpoint decides; the share is counted.
        let _ = balance.clone().oneshot(()).await.unwrap();
    }
    assert!(world.calls(1) < 30, "{}", world.calls(1));
    for port in 2..=4 {
        assert!((200..460).contains(&world.calls(port)), "{}", world.calls(port));
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_come_and_go_and_no_call_is_lost() {
    let world = World::default();
    for port in 1..=8 {
        world.set(port, Behaviour::Answer(Duration::from_millis(u64::from(port) * 10)));
    }
    let (feed, updates) = Updates::channel();
    feed.publish(endpoints([1]));
    let balance = balance(updates, &world);
    let mut rng = fastrand::Rng::with_seed(11);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let mut set = endpoints((1..=8).filter(|_| rng.bool()));
        set.extend(endpoints([9]));
        feed.publish(set);
        calls.spawn(balance.clone().oneshot(()));
        tokio::time::sleep(Duration::from_millis(rng.u64(1..5))).await;
    }
    feed.publish([]);
    let mut answers = 0;
    while let Some(result) = calls.join_next().await {
        result.unwrap().unwrap().unwrap();
        answers += 1;
    }
    assert_eq!(answers, 500);
    let error = balance.oneshot(()).await.unwrap_err();
    assert!(error.is::<NoEndpoints>() && provably_not_sent(&*error), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_first_set_is_waited_for_but_not_for_ever() {
    let world = World::default();
    let (feed, updates) = Updates::channel();
    let balance = balance(updates, &world);
    let early = tokio::spawn(balance.clone().oneshot(()));
    tokio::time::sleep(SECOND).await;
    feed.publish(endpoints([3]));
    let answer: Result<Result<u16, u16>, BoxError> = early.await.unwrap();
    assert_eq!(answer.unwrap(), Ok(3));

    let (_feed, updates) = Updates::channel();
    let error = self::balance(updates, &world).oneshot(()).await.unwrap_err();
    assert!(error.is::<NoEndpoints>(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_last_good_set_is_used_when_the_source_is_gone() {
    let world = World::default();
    let (feed, updates) = Updates::channel();
    feed.publish(endpoints([3]));
    let balance = balance(updates, &world);
    drop(feed);
    for _ in 0..3 {
        assert_eq!(balance.clone().oneshot(()).await.unwrap(), Ok(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_for_a_minute_fails_no_call() {
    let world = World::default();
    for port in 1..=3 {
        world.set(port, Behaviour::Answer(Duration::from_millis(5)));
    }
    let (feed, updates) = Updates::channel();
    feed.publish(endpoints(1..=3));
    let balance = balance(updates, &world);
    let begun = tokio::time::Instant::now();
    let mut calls = 0;
    // The source says nothing for a minute, and then that it is gone for good.
    while begun.elapsed() < 60 * SECOND {
        balance.clone().oneshot(()).await.unwrap().unwrap();
        calls += 1;
    }
    drop(feed);
    balance.oneshot(()).await.unwrap().unwrap();
    assert!(calls > 10_000, "{calls}");
}

/// The 99th percentile of the times of many calls, six at a time, where the first of three
/// endpoints takes `first` and the others 20 ms.
async fn p99(first: Duration) -> Duration {
    let world = World::default();
    world.set(1, Behaviour::Answer(first));
    for port in 2..=3 {
        world.set(port, Behaviour::Answer(Duration::from_millis(20)));
    }
    let balance = balance(Updates::fixed(endpoints(1..=3)), &world);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let balance = balance.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..500 {
                let begun = tokio::time::Instant::now();
                balance.clone().oneshot(()).await.unwrap().unwrap();
                times.push(begun.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn one_that_is_ten_times_slower_does_not_make_the_tail() {
    let none_slow = p99(Duration::from_millis(20)).await;
    let one_slow = p99(Duration::from_millis(200)).await;
    assert!(one_slow <= none_slow.mul_f64(1.5), "{one_slow:?} beside {none_slow:?}");
}

/// A service that connects, and says if it cannot.
#[derive(Clone)]
struct Connects(std::net::SocketAddr);

impl Service<()> for Connects {
    type Response = std::net::SocketAddr;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            tokio::net::TcpStream::connect(address).await?;
            Ok(address)
        })
    }
}

fn connecting(updates: Updates, metrics: &Metrics) -> impl Fn() -> Answer + use<> {
    let balance = Balance::new(
        Target::new("greeter", "http"),
        updates,
        |endpoint| Connects(endpoint.address),
        |result: Result<&std::net::SocketAddr, &BoxError>| match result {
            Ok(_) => Class::Success,
            Err(_) => Class::Unreachable,
        },
        |_| None,
        settings(),
    );
    balance.bind(metrics);
    move || Box::pin(balance.clone().oneshot(()))
}

type Answer = BoxFuture<'static, Result<std::net::SocketAddr, BoxError>>;

async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn who_was_away_is_called_again_when_it_can_be_connected_to() {
    let address = listener().await.local_addr().unwrap();
    let there = listener().await;
    let metrics = Metrics::default();
    let all = [address, there.local_addr().unwrap()].map(Endpoint::new);
    // Whoever does not accept has a full queue after a thousand calls, and is away too.
    tokio::spawn(async move { while there.accept().await.is_ok() {} });
    let call = connecting(Updates::fixed(all), &metrics);
    let mut failed = 0;
    for _ in 0..50 {
        failed += usize::from(call().await.is_err());
    }
    assert_eq!(failed, 1, "the one that found it out");
    let unreachable = r#"client_balancer_unreachable{protocol="http",service="greeter"} 1"#;
    assert!(metrics.encode().contains(unreachable), "{}", metrics.encode());

    let _back = tokio::net::TcpListener::bind(address).await.unwrap();
    let again = async { while call().await.unwrap() != address {} };
    tokio::time::timeout(20 * SECOND, again).await.expect("it is called again");
}

#[tokio::test]
async fn while_nobody_can_be_connected_to_a_call_waits_for_the_first_that_is_back() {
    let address = listener().await.local_addr().unwrap();
    let call = connecting(Updates::fixed([Endpoint::new(address)]), &Metrics::default());
    assert!(call().await.is_err(), "the one that found it out");
    let mut waiting = call();
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let _back = tokio::net::TcpListener::bind(address).await.unwrap();
    assert_eq!(waiting.await.unwrap(), address);
}

#[tokio::test]
async fn a_newer_set_is_asked_for_and_ends_the_wait() {
    let (gone, there) = (listener().await.local_addr().unwrap(), listener().await);
    let (feed, updates) = Updates::channel();
    feed.publish([Endpoint::new(gone)]);
    let call = connecting(updates, &Metrics::default());
    assert!(call().await.is_err(), "the one that found it out");
    let mut waiting = call();
    assert!(futures_util::poll!(&mut waiting).is_pending());
    feed.refresh_wanted().await;
    feed.publish([Endpoint::new(there.local_addr().unwrap())]);
    assert_eq!(waiting.await.unwrap(), there.local_addr().unwrap());
}

#[tokio::test(start_paused = true)]
async fn when_it_is_so_for_longer_calls_fail_at_once() {
    let gone = listener().await.local_addr().unwrap();
    let call = connecting(Updates::fixed([Endpoint::new(gone)]), &Metrics::default());
    assert!(call().await.is_err(), "the one that found it out");
    tokio::time::sleep(settings().connect_timeout).await;
    let begun = tokio::time::Instant::now();
    let error = call().await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(error.is::<Unreachable>() && provably_not_sent(&*error), "{error}");
}
