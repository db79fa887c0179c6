//! One endpoint that is slower than the others must not make the tail of the calls.
//!
//! The column of a client's layers, in its order and with its numbers, above servers that are
//! called without their sockets, under a paused clock: a 99th percentile over real sockets is
//! mostly one of this machine. What needs sockets is in `resilience_upstreams`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    routing::get,
};
use chassis::{
    BoxFuture, Env,
    core::BoxError,
    discovery::{Balance, ClientConfig, Discovery, Endpoint, Registry, Target, Updates},
    resilience::{Class, Decision, RetryPolicy, retry::RetryLayer, timeout::TimeoutLayer},
};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::service::http;

const USUAL: Duration = Duration::from_millis(20);
const CALLS: usize = 6_000;
const AT_A_TIME: usize = 6;

/// A server without a socket that counts its calls.
#[derive(Clone)]
struct Instance {
    router: Router,
    calls: Arc<AtomicUsize>,
}

impl Instance {
    /// Answers after this time, a tenth more or less.
    fn answering(after: Duration, seed: u64) -> Instance {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let handler = move || async move {
            let part = 0.9 + random.lock().f64() / 5.0;
            tokio::time::sleep(after.mul_f64(part)).await;
        };
        let router = Router::new().route("/", get(handler));
        let server = chassis::http::Server::new(&http(), router);
        let router = server.into_router(&Env::test("items")).unwrap();
        Instance { router, calls: Arc::default() }
    }
}

impl Service<()> for Instance {
    type Response = StatusCode;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<StatusCode, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, SeqCst);
        let request = Request::get("/").header(header::HOST, "items").body(Body::empty()).unwrap();
        let answer = self.router.clone().oneshot(request);
        Box::pin(async move { answer.await.map(|answer| answer.status()) })
    }
}

/// All may be sent twice.
#[derive(Clone)]
struct Safe;

impl RetryPolicy<(), StatusCode, BoxError> for Safe {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn decide(&self, _: u32, (): &(), result: Result<&StatusCode, &BoxError>) -> Decision {
        if result.is_ok_and(StatusCode::is_success) { Decision::Done } else { Decision::Retry }
    }
}

/// The 99th percentile of the times of many calls to these instances.
async fn p99(instances: &[Instance]) -> Duration {
    let config = ClientConfig::default();
    let endpoints =
        (0..).zip(instances).map(|(port, _)| Endpoint::new(([127, 0, 0, 1], port).into()));
    let instances = instances.to_vec();
    let balance = Balance::new(
        Target::new("items", "http"),
        Updates::fixed(endpoints.collect::<Vec<_>>()),
        move |endpoint: &Endpoint| instances[usize::from(endpoint.address.port())].clone(),
        |result: Result<&StatusCode, &Infallible>| match result {
            Ok(status) if status.is_success() => Class::Success,
            _ => Class::Failure,
        },
        |()| None,
        config.balance_settings(&Discovery::in_process(Registry::new())),
    );
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(Safe, config.retry_settings(), config.retry_budget()))
        .layer(TimeoutLayer::new(config.attempt_timeout))
        .layer(config.bulkhead())
        .service(balance);
    let mut callers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let client = client.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..CALLS / AT_A_TIME {
                let begun = Instant::now();
                assert_eq!(client.clone().oneshot(()).await.unwrap(), StatusCode::OK);
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
async fn an_endpoint_that_is_ten_times_slower_does_not_make_the_tail() {
    let of = |first| [Instance::answering(first, 1), usual(2), usual(3)];
    fn usual(seed: u64) -> Instance {
        Instance::answering(USUAL, seed)
    }
    let none_slow = p99(&of(USUAL)).await;
    let instances = of(10 * USUAL);
    let one_slow = p99(&instances).await;
    assert!(one_slow <= none_slow.mul_f64(1.5), "p99 {one_slow:?} beside {none_slow:?}");
    let calls = instances[0].calls.load(SeqCst);
    // A coin would send it a third. It is tried now and then whether it is well again.
    assert!((1..CALLS / 100).contains(&calls), "{calls} of {CALLS}");
}
