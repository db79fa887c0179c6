//! Fallback: what stands in says that it does.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError, Class, Classified,
    cache::{Cache, CacheSettings},
    fallback::{Answer, Degraded, FallbackLayer, LastGood, Later, Otherwise, Substitute},
};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A callee that can be down; zero is refused as wrong.
fn callee(
    down: &Arc<AtomicBool>,
) -> impl Service<u32, Response = u32, Error = BoxError> + Clone + use<> {
    let down = down.clone();
    service_fn(move |request: u32| {
        let down = down.load(Ordering::Relaxed);
        async move { if down { Err::<u32, BoxError>("down".into()) } else { Ok(request * 10) } }
    })
}

fn last_good() -> LastGood<u32, u32, impl Fn(&u32) -> Option<u32> + Clone + Send + Sync> {
    LastGood::new(Cache::new(CacheSettings::default()), |request: &u32| Some(*request))
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_then_a_default_each_marked() {
    let down = Arc::new(AtomicBool::new(false));
    let substitute = last_good().or(Otherwise::new(|| 7));
    let layer = FallbackLayer::new(substitute, Classified::errors());
    let service = layer.layer(callee(&down));
    let call = |request| service.clone().oneshot(request);
    assert_eq!(call(1).await.unwrap(), Answer { value: 10, degraded: None });

    down.store(true, Ordering::Relaxed);
    let age = Duration::from_secs(90);
    tokio::time::advance(age).await;
    let cached = Answer { value: 10, degraded: Some(Degraded::Cached { age }) };
    assert_eq!(call(1).await.unwrap(), cached);
    let fixed = Answer { value: 7, degraded: Some(Degraded::Default) };
    assert_eq!(call(2).await.unwrap(), fixed);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(call(1).await.unwrap(), fixed, "what is too old does not stand in");
    let stats = layer.stats();
    assert_eq!((stats.cached, stats.default, stats.queued, stats.failed), (1, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_is_written_down() {
    let down = Arc::new(AtomicBool::new(true));
    let queue = Arc::new(Mutex::new(Vec::new()));
    let written = queue.clone();
    let enqueue = move |request: u32| {
        let queue = written.clone();
        async move {
            if request == 0 {
                return Err::<u32, BoxError>("the queue is full".into());
            }
            queue.lock().unwrap().push(request);
            Ok(202)
        }
    };
    let later = Later::new(|request: &u32| Some(*request), enqueue);
    let layer = FallbackLayer::new(later, Classified::errors());
    let service = layer.layer(callee(&down));
    let queued = Answer { value: 202, degraded: Some(Degraded::Queued) };
    assert_eq!(service.clone().oneshot(5).await.unwrap(), queued);
    assert_eq!(*queue.lock().unwrap(), [5]);
    let failed = service.clone().oneshot(0).await.unwrap_err();
    assert_eq!(failed.to_string(), "down", "the failure stands");
    assert_eq!((layer.stats().queued, layer.stats().failed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_callees_fault_is_the_answer() {
    let classify = |result: Result<&u32, &BoxError>| match result {
        Ok(503) => Class::Failure,
        Ok(_) => Class::Success,
        Err(_) => Class::Ignore,
    };
    let callee = service_fn(|request: u32| async move {
        if request == 0 { Err::<u32, BoxError>("wrong".into()) } else { Ok(request) }
    });
    let layer = FallbackLayer::new(Otherwise::new(|| 7), classify);
    let service = layer.layer(callee);
    assert_eq!(service.clone().oneshot(0).await.unwrap_err().to_string(), "wrong");
    assert_eq!(service.clone().oneshot(404).await.unwrap().value, 404);
    let found = service.clone().oneshot(503).await.unwrap();
    assert_eq!((found.value, found.degraded), (7, Some(Degraded::Default)));
}
