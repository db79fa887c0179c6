//! Cache: one fetch for many, old values when they are better than waiting or nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError, Class,
    cache::{Cache, CacheLayer, CacheSettings, Cached, FetchFailed, Freshness},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::MS;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> CacheSettings {
    CacheSettings { jitter: 0.0, ..CacheSettings::default() }
}

/// A callee that counts, takes 100 ms and can be down.
#[derive(Clone, Default)]
struct Callee {
    calls: Arc<AtomicU32>,
    down: Arc<AtomicU32>,
}

impl Callee {
    async fn fetch(self) -> Result<u32, BoxError> {
        tokio::time::sleep(100 * MS).await;
        let nth = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.down.load(Ordering::Relaxed) == 1 { Err("down".into()) } else { Ok(nth) }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn set_down(&self, down: bool) {
        self.down.store(u32::from(down), Ordering::Relaxed);
    }
}

async fn get(cache: &Cache<u32, u32>, callee: &Callee) -> Result<Cached<u32>, FetchFailed> {
    let callee = callee.clone();
    cache.get_or_fetch(1, move || callee.fetch()).await
}

#[tokio::test(start_paused = true)]
async fn of_many_that_want_the_same_one_fetches() {
    let (cache, callee) = (Cache::new(settings()), Callee::default());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (cache, callee) = (cache.clone(), callee.clone());
        calls.spawn(async move { get(&cache, &callee).await.unwrap().value });
    }
    assert!(calls.join_all().await.iter().all(|value| *value == 1));
    assert_eq!((callee.calls(), cache.stats().fetches), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_given_at_once_and_fetched_anew() {
    let (cache, callee) = (Cache::new(settings()), Callee::default());
    get(&cache, &callee).await.unwrap();
    tokio::time::advance(61 * SECOND).await;
    let before = tokio::time::Instant::now();
    let found = get(&cache, &callee).await.unwrap();
    assert_eq!((found.value, found.freshness), (1, Freshness::Stale));
    assert_eq!(before.elapsed(), Duration::ZERO, "nobody waits");
    tokio::time::sleep(200 * MS).await;
    let found = get(&cache, &callee).await.unwrap();
    assert_eq!((found.value, found.freshness), (2, Freshness::Fresh));
    assert_eq!(callee.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_old_value_stands_in_for_a_callee_that_fails() {
    let (cache, callee) = (Cache::new(settings()), Callee::default());
    get(&cache, &callee).await.unwrap();
    callee.set_down(true);
    tokio::time::advance(300 * SECOND).await;
    let found = get(&cache, &callee).await.unwrap();
    assert_eq!((found.value, found.freshness), (1, Freshness::StaleOnError));
    assert!(found.age >= 300 * SECOND);
    tokio::time::advance(400 * SECOND).await;
    let failed = get(&cache, &callee).await.unwrap_err();
    assert!(matches!(failed, FetchFailed::Failed(_)), "not for ever");
    assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), "down");
    callee.set_down(false);
    assert_eq!(get(&cache, &callee).await.unwrap().freshness, Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_takes_nothing_from_the_others() {
    let (cache, callee) = (Cache::new(settings()), Callee::default());
    assert!(tokio::time::timeout(50 * MS, get(&cache, &callee)).await.is_err());
    assert_eq!(get(&cache, &callee).await.unwrap().value, 1);
    assert_eq!(callee.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_or_hangs_frees_its_place() {
    let cache: Cache<u32, u32> = Cache::new(CacheSettings { max_fetches: 1, ..settings() });
    let panics = || async { panic!("on purpose") as Result<u32, BoxError> };
    assert!(matches!(cache.get_or_fetch(1, panics).await, Err(FetchFailed::Lost)));
    let panics_early = || -> std::future::Ready<Result<u32, BoxError>> { panic!("on purpose") };
    assert!(matches!(cache.get_or_fetch(1, panics_early).await, Err(FetchFailed::Lost)));
    let hangs = std::future::pending::<Result<u32, BoxError>>;
    let hanging = cache.clone();
    let waiting = tokio::spawn(async move { hanging.get_or_fetch(1, hangs).await });
    tokio::time::sleep(MS).await;
    let more = cache.get_or_fetch(2, hangs).await;
    assert!(matches!(more, Err(FetchFailed::TooMany)));
    assert!(matches!(waiting.await.unwrap(), Err(FetchFailed::TimedOut)));
    assert_eq!(get(&cache, &Callee::default()).await.unwrap().value, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_it_was_fetched_is_not_kept() {
    let (cache, callee) = (Cache::new(settings()), Callee::default());
    let (reading, slow) = (cache.clone(), callee.clone());
    let first = tokio::spawn(async move { get(&reading, &slow).await });
    tokio::time::sleep(50 * MS).await;
    cache.remove(&1);
    assert_eq!(first.await.unwrap().unwrap().value, 1, "it is an answer still");
    assert_eq!(get(&cache, &callee).await.unwrap().value, 2, "but nobody keeps it");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let cache = Cache::new(CacheSettings { max_entries: 100, ..settings() });
    for key in 0..10_000u32 {
        cache.get_or_fetch(key, move || async move { Ok::<_, BoxError>(key) }).await.unwrap();
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.evicted), (100, 9_900));
}

#[tokio::test(start_paused = true)]
async fn as_a_layer_only_successes_are_kept() {
    let status = Arc::new(AtomicU32::new(200));
    let answer = status.clone();
    let callee = service_fn(move |_: &'static str| {
        let status = answer.load(Ordering::Relaxed);
        async move { Ok::<u32, BoxError>(status) }
    });
    let classify = |result: Result<&u32, &BoxError>| match result {
        Ok(status) if *status < 500 => Class::Success,
        _ => Class::Failure,
    };
    let cache = Cache::new(settings());
    let key = |request: &&'static str| request.starts_with('/').then_some(*request);
    let service = CacheLayer::new(cache.clone(), key, classify).layer(callee);
    let mut seen = Vec::new();
    for (request, now, later) in [("/a", 503, 0), ("/a", 200, 0), ("/a", 503, 100), ("*", 200, 0)] {
        status.store(now, Ordering::Relaxed);
        tokio::time::advance(later * SECOND).await;
        let found = service.clone().oneshot(request).await.unwrap();
        seen.push((found.value, found.freshness));
    }
    let expected = [
        (503, Freshness::Uncached),
        (200, Freshness::Fresh),
        (200, Freshness::StaleOnError),
        (200, Freshness::Uncached),
    ];
    assert_eq!(seen, expected);
    assert_eq!(cache.stats().entries, 1);
}
