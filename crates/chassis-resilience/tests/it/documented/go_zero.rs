//! go-zero, `core/breaker/googlebreaker.go`, `core/load/adaptiveshedder.go`,
//! `core/syncx/singleflight.go`, `core/stores/cache`.

use std::time::Duration;

use chassis_resilience::{
    AdaptiveSettings, BoxError, Class, Priority, Settle, ShedSettings, Shedder, Throttle,
    ThrottleSettings, Verdict,
    cache::{Cache, CacheSettings},
};
use tokio::time::Instant;

use super::SECOND;
use crate::MS;

fn throttle() -> Throttle {
    Throttle::new(ThrottleSettings { k: 1.5, ..ThrottleSettings::default() })
}

fn answers(throttle: &Throttle, count: u32, class: Class) {
    for _ in 0..count {
        if let Ok(permit) = throttle.try_acquire(Instant::now()) {
            permit.settle(Verdict { class, latency: MS, retry_after: None });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_drop_ratio_follows_k_times_the_accepts() {
    let throttle = throttle();
    answers(&throttle, 30, Class::Success);
    answers(&throttle, 15, Class::Failure);
    assert_eq!(throttle.stats().share, 0.0, "45 requests for 30 accepts are K = 1.5");
    answers(&throttle, 55, Class::Failure);
    let stats = throttle.stats();
    let surplus = stats.requests as f64 - 1.5 * stats.accepts as f64;
    assert!((stats.share - surplus / (stats.requests as f64 + 1.0)).abs() < 1e-12, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_few_requests_are_protected_from_being_dropped() {
    let throttle = throttle();
    answers(&throttle, 19, Class::Failure);
    assert_eq!((throttle.stats().share, throttle.stats().refused), (0.0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_forced_through_after_a_second() {
    let throttle = throttle();
    answers(&throttle, 100_000, Class::Failure);
    assert!(throttle.stats().share > 0.95);
    tokio::time::advance(SECOND).await;
    assert!(throttle.try_acquire(Instant::now()).is_ok());
}

/// Theirs also asks the processor; ours asks it for how long tasks wait, by `watch_queue`.
#[tokio::test(start_paused = true)]
async fn the_shedder_drops_what_is_above_the_flying_limit() {
    let adaptive = AdaptiveSettings { initial_limit: 10, ..AdaptiveSettings::default() };
    let shedder = Shedder::new(ShedSettings { adaptive, ..ShedSettings::default() });
    let places: Vec<_> =
        (0..20).map(|_| shedder.try_enter(Priority::Critical, Instant::now())).collect();
    assert_eq!(places.iter().filter(|place| place.is_ok()).count(), 10);
    assert_eq!(shedder.stats().critical, 10);
}

#[tokio::test(start_paused = true)]
async fn the_queue_of_the_runtime_is_watched_and_an_idle_one_sheds_nothing() {
    let shedder = Shedder::default();
    assert!(tokio::time::timeout(10 * SECOND, shedder.watch_queue()).await.is_err());
    assert_eq!(shedder.stats().part, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_single_flight_is_shared_by_those_that_want_the_same() {
    let cache = Cache::new(CacheSettings::default());
    let get = || {
        cache.get_or_fetch("key", || async {
            tokio::time::sleep(MS).await;
            Ok::<_, BoxError>(1)
        })
    };
    let (first, second, third) = tokio::join!(get(), get(), get());
    assert_eq!([first, second, third].map(|found| found.unwrap().value), [1, 1, 1]);
    assert_eq!(cache.stats().fetches, 1);
}

#[tokio::test(start_paused = true)]
async fn expiry_is_spread_so_that_not_all_expires_at_once() {
    let settings = CacheSettings {
        fresh_for: 100 * SECOND,
        jitter: 0.05,
        stale_while_revalidate: Duration::ZERO,
        ..CacheSettings::default()
    };
    let cache = Cache::new(settings);
    (0..100).for_each(|key| cache.insert(key, 0));
    let mut fetched = 0;
    for _ in 0..2 {
        tokio::time::advance(49 * SECOND - 250 * MS).await;
        for key in 0..100 {
            let before = cache.stats().fetches;
            cache.get_or_fetch(key, || async { Ok::<_, BoxError>(1) }).await.unwrap();
            fetched += cache.stats().fetches - before;
        }
    }
    assert!(fetched > 10 && fetched < 90, "{fetched} of 100 expired between 95 and 97.5 s");
}
