//! The shared limit: all instances together, a store that fails, bounded memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError, RateLimit, RateLimited,
    rate_limit::shared::{
        BoxFuture, Grant, MemoryTokenStore, OnStoreDown, SharedRateLimit, SharedRateLimitLayer,
        SharedSettings, TokenStore, conformance,
    },
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{MS, cause};

/// A store that several instances use, and that can fail or hang.
#[derive(Clone)]
struct Store {
    memory: Arc<MemoryTokenStore>,
    ill: Arc<AtomicU32>,
}

const FAILS: u32 = 1;
const HANGS: u32 = 2;

impl Store {
    fn new() -> Self {
        Store { memory: Arc::default(), ill: Arc::default() }
    }
}

impl TokenStore for Store {
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        match self.ill.load(Ordering::Relaxed) {
            FAILS => Box::pin(async { Err("down".into()) }),
            HANGS => Box::pin(std::future::pending()),
            _ => self.memory.take(key, limit, want),
        }
    }
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    conformance::run_all(MemoryTokenStore::default()).await.unwrap();
}

/// A store that gives everybody everything: the suite must see that.
#[tokio::test]
async fn the_contract_is_not_kept_by_a_store_that_does_not_count() {
    struct Generous;
    impl TokenStore for Generous {
        fn take<'a>(
            &'a self,
            _: &'a str,
            _: RateLimit,
            want: u32,
        ) -> BoxFuture<'a, Result<Grant, BoxError>> {
            Box::pin(async move { Ok(Grant::Tokens(want)) })
        }
    }
    assert!(conformance::run_all(Generous).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn five_instances_keep_one_limit_and_seldom_ask() {
    let store = Store::new();
    let limit = RateLimit::per_second(1_000).burst(100);
    let instances: Vec<_> = (0..5)
        .map(|_| SharedRateLimit::new(store.clone(), limit, SharedSettings::default()))
        .collect();
    let mut passed = 0;
    // Each wants 1000 a second for ten seconds.
    for _ in 0..10_000 {
        for instance in &instances {
            passed += u32::from(instance.check("all").await.is_ok());
        }
        tokio::time::advance(MS).await;
    }
    assert!((9_000..=100 + 10_000 + 1_000).contains(&passed), "{passed}");
    let asked: u64 = instances.iter().map(|instance| instance.stats().asked).sum();
    assert!(asked < 7_000, "{asked} requests to the store for 50000 calls");
}

#[tokio::test(start_paused = true)]
async fn an_instance_with_plenty_asks_once_for_many_calls() {
    let limit = RateLimit::per_second(100_000).burst(10_000);
    let shared = SharedRateLimit::new(Store::new(), limit, SharedSettings::default());
    for _ in 0..10_000 {
        shared.check("all").await.unwrap();
        tokio::time::advance(Duration::from_micros(100)).await;
    }
    assert!(shared.stats().asked < 120, "{:?}", shared.stats());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_each_keeps_its_share() {
    for ill in [FAILS, HANGS] {
        let store = Store::new();
        store.ill.store(ill, Ordering::Relaxed);
        let limit = RateLimit::per_second(300);
        let shared = SharedRateLimit::new(store.clone(), limit, SharedSettings::default());
        let began = tokio::time::Instant::now();
        let mut passed = 0;
        while began.elapsed() < 10_000 * MS {
            passed += u32::from(shared.check("all").await.is_ok());
            tokio::time::advance(MS).await;
        }
        // A store that hangs costs one call 50 ms each second.
        assert!((850..=1_001).contains(&passed), "{passed} of a third of 3000");
        assert!(shared.stats().failures <= 11, "{:?}", shared.stats());

        store.ill.store(0, Ordering::Relaxed);
        tokio::time::advance(1_000 * MS).await;
        shared.check("all").await.unwrap();
        let local = shared.stats().local;
        tokio::time::advance(100 * MS).await;
        shared.check("all").await.unwrap();
        assert_eq!(shared.stats().local, local, "the store decides again");
    }
}

#[tokio::test(start_paused = true)]
async fn or_everything_is_refused_while_the_store_is_down() {
    let store = Store::new();
    store.ill.store(FAILS, Ordering::Relaxed);
    let settings =
        SharedSettings { on_store_down: OnStoreDown::Refuse, ..SharedSettings::default() };
    let shared = SharedRateLimit::new(store.clone(), RateLimit::per_second(10), settings);
    let refused = shared.check("a").await.unwrap_err();
    assert_eq!(refused.retry_in, 1_000 * MS);
    store.ill.store(0, Ordering::Relaxed);
    shared.check("a").await.unwrap_err();
    tokio::time::advance(refused.retry_in).await;
    shared.check("a").await.unwrap();
}

/// Found by reading: after each pause all callers of all keys went to a store that hangs.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_down_is_tried_by_one_call() {
    let store = Store::new();
    store.ill.store(HANGS, Ordering::Relaxed);
    let limit = RateLimit::per_second(10);
    let shared = SharedRateLimit::new(store, limit, SharedSettings::default());
    let _ = shared.check("first").await;
    tokio::time::advance(1_000 * MS).await;
    let mut calls = tokio::task::JoinSet::new();
    for key in 0..100 {
        let shared = shared.clone();
        calls.spawn(async move { shared.check(&key.to_string()).await.is_ok() });
    }
    calls.join_all().await;
    assert_eq!(shared.stats().asked, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_newcomers_share() {
    let settings = SharedSettings { max_keys: 10, ..SharedSettings::default() };
    let limit = RateLimit::per_second(1);
    let shared = SharedRateLimit::new(Store::new(), limit, settings);
    let mut passed = 0;
    for key in 0..10_000 {
        passed += u32::from(shared.check(&key.to_string()).await.is_ok());
    }
    // Ten have their own, and all the others one together.
    assert_eq!((passed, shared.stats().keys), (11, 11));
    tokio::time::advance(10_000 * MS).await;
    shared.check("new").await.unwrap();
    assert_eq!(shared.stats().keys, 1, "idle keys make room");
}

#[tokio::test(start_paused = true)]
async fn as_a_layer_it_waits_only_for_the_store() {
    let shared =
        SharedRateLimit::new(Store::new(), RateLimit::per_second(1), SharedSettings::default());
    let callee = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
    let key = |request: &u32| (*request > 0).then(|| request.to_string());
    let service = SharedRateLimitLayer::new(shared, key).layer(callee);
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 1);
    let limited = cause::<RateLimited>(service.clone().oneshot(1).await.unwrap_err());
    assert!(limited.retry_in <= 1_000 * MS && limited.retry_in > Duration::ZERO);
    assert_eq!(service.clone().oneshot(2).await.unwrap(), 2);
    assert_eq!(service.clone().oneshot(0).await.unwrap(), 0);
    assert_eq!(service.clone().oneshot(0).await.unwrap(), 0, "without a key there is no limit");
}
