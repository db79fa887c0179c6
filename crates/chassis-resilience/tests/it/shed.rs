//! Load shed and adaptive concurrency: who is refused, and what the others get.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chassis_resilience::{
    AdaptiveLayer, AdaptiveLimit, AdaptiveSettings, BoxError, Classified, ConcurrencyLimited,
    LoadShedLayer, Priority, Shed, ShedSettings, Shedder,
};
use tokio::{sync::Semaphore, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

use crate::{MS, cause, next, silence};

fn priority(request: &u32) -> Priority {
    match request {
        0 => Priority::Exempt,
        1 => Priority::Critical,
        2 => Priority::Normal,
        _ => Priority::Sheddable,
    }
}

#[tokio::test(start_paused = true)]
async fn sheddable_goes_first_critical_last_and_exempt_never() {
    let adaptive =
        AdaptiveSettings { initial_limit: 10, max_limit: 10, ..AdaptiveSettings::default() };
    let shedder = Shedder::new(ShedSettings { adaptive, ..ShedSettings::default() });
    let callee = service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>());
    let service = LoadShedLayer::new(shedder.clone(), Classified::errors(), priority).layer(callee);
    let mut under_way = Vec::new();
    let mut room = |request: u32| {
        let mut places = 0;
        while places < 20 {
            let mut call = Box::pin(service.clone().oneshot(request));
            let waker = std::task::Waker::noop();
            match call.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
                std::task::Poll::Pending => under_way.push(call),
                std::task::Poll::Ready(refused) => {
                    assert!(refused.unwrap_err().is::<Shed>());
                    break;
                }
            }
            places += 1;
        }
        places
    };
    assert_eq!([3, 2, 1, 0].map(&mut room), [8, 1, 1, 20]);
    let stats = shedder.stats();
    assert_eq!((stats.sheddable, stats.normal, stats.critical), (1, 1, 1));
    assert_eq!(stats.adaptive.in_flight, 10, "exempt requests take no room");
    drop(under_way);
    assert_eq!(shedder.stats().adaptive.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_freed_however_the_call_ends() {
    let settings = AdaptiveSettings {
        initial_limit: 1,
        max_limit: 1,
        min_limit: 1,
        ..AdaptiveSettings::default()
    };
    let limit = AdaptiveLimit::new(settings);
    let layer = AdaptiveLayer::new(limit.clone(), Classified::errors());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let call = tokio::spawn(service.clone().oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    let limited = cause::<ConcurrencyLimited>(service.clone().oneshot(2).await.unwrap_err());
    assert_eq!(limited.limit, 1);
    silence(&mut handle, MS).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(limit.stats().in_flight, 0);

    let callee = service_fn(|_: u32| async { panic!("on purpose") as Result<u32, BoxError> });
    assert!(tokio::spawn(layer.layer(callee).oneshot(1)).await.unwrap_err().is_panic());
    assert_eq!((limit.stats().in_flight, limit.stats().rejected), (0, 1));
}

/// A server with ten workers and calls of 10 ms, so 1000 a second at most: a queue before it
/// makes each call wait its turn.
fn server() -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send {
    let workers = Arc::new(Semaphore::new(10));
    service_fn(move |request: u32| {
        let workers = workers.clone();
        async move {
            let _worker = workers.acquire_owned().await?;
            tokio::time::sleep(10 * MS).await;
            Ok(request)
        }
    })
}

/// `per_ms` requests in each of `ms` milliseconds: the latencies of those that were answered.
async fn offer<S>(service: S, per_ms: u32, ms: u32) -> Vec<Duration>
where
    S: Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..ms {
        for _ in 0..per_ms {
            let (service, answered) = (service.clone(), answered.clone());
            calls.spawn(async move {
                let began = Instant::now();
                if service.oneshot(2).await.is_ok() {
                    answered.lock().unwrap().push(began.elapsed());
                }
            });
        }
        tokio::time::sleep(MS).await;
    }
    calls.join_all().await;
    let mut latencies = std::mem::take(&mut *answered.lock().unwrap());
    latencies.sort_unstable();
    latencies
}

#[tokio::test(start_paused = true)]
async fn at_three_times_the_capacity_goodput_stays_and_answers_are_in_time() {
    let shedder = Shedder::default();
    let service =
        LoadShedLayer::new(shedder.clone(), Classified::errors(), priority).layer(server());
    // A while to find the limit, then five seconds that count.
    offer(service.clone(), 3, 5_000).await;
    let latencies = offer(service, 3, 5_000).await;
    let goodput = latencies.len() as f64 / 5_000.0;
    let p99 = latencies[latencies.len() * 99 / 100];
    assert!(goodput >= 0.8, "{goodput} of the peak, {:?}", shedder.stats());
    assert!(p99 <= 30 * MS, "{p99:?}, {:?}", shedder.stats());
    assert!(shedder.stats().normal > 10_000, "{:?}", shedder.stats());
}

#[tokio::test(start_paused = true)]
async fn below_the_capacity_nothing_is_shed() {
    let shedder = Shedder::default();
    let service =
        LoadShedLayer::new(shedder.clone(), Classified::errors(), priority).layer(server());
    let half = service_fn(move |request: u32| {
        let service = service.clone();
        async move { if fastrand::bool() { service.oneshot(request).await } else { Ok(request) } }
    });
    offer(half, 1, 130_000).await;
    let stats = shedder.stats();
    // While the least latency is measured, three calls at a time are let through.
    assert!(stats.normal < 1_000, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn without_shedding_the_same_load_is_answered_too_late() {
    let latencies = offer(server(), 3, 5_000).await;
    let p99 = latencies[latencies.len() * 99 / 100];
    assert!(p99 > 5_000 * MS, "{p99:?}");
}
