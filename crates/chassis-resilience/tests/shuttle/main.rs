//! What threads share, under schedules that a machine would seldom show.
//!
//! The modules of the crate are built once more here, on locks and atomics of shuttle, which
//! runs each check under thousands of random schedules and can replay the one that failed. The
//! sources are the very same files: only `sync` differs.

// Most of what the modules offer is not used here, and their own tests are not run.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]
#![allow(clippy::print_stdout, clippy::expect_used)]

mod sync;

#[path = "../../src/adaptive/mod.rs"]
mod adaptive;
#[path = "../../src/breaker/mod.rs"]
mod breaker;
#[path = "../../src/bulkhead/mod.rs"]
mod bulkhead;
#[path = "../../src/classify.rs"]
mod classify;
#[path = "../../src/detour.rs"]
mod detour;
#[path = "../../src/guard.rs"]
mod guard;
#[path = "../../src/histogram.rs"]
mod histogram;
#[path = "../../src/judged.rs"]
mod judged;
#[path = "../../src/rate_limit/mod.rs"]
mod rate_limit;
#[path = "../../src/rejection.rs"]
mod rejection;
#[path = "../../src/retry/mod.rs"]
mod retry;
#[path = "../../src/ring.rs"]
mod ring;
#[path = "../../src/shed/mod.rs"]
mod shed;
#[path = "../../src/throttle/mod.rs"]
mod throttle;

use std::time::Duration;

use classify::{Class, Classify};
use detour::Detour;
use guard::{Guard, GuardLayer, Guarded};
use judged::{Judged, Settle, Verdict};
use rejection::is_local_rejection;
use shuttle::{Config, Runner, scheduler::RandomScheduler, thread};
use tokio::time::Instant;

use sync::{AtomicU64, Ordering};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const SCHEDULES: usize = 2_000;

const CHECKS: [(&str, fn()); 11] = [
    ("half_open_never_has_more_probes_than_permits", half_open),
    ("every_outcome_is_in_the_window", window),
    ("what_was_let_through_before_an_opening_is_late", late),
    ("a_watcher_ends_with_the_real_state", watcher),
    ("a_retry_is_paid_once", budget),
    ("a_rate_limit_gives_its_burst_once", rate),
    ("keys_stay_bounded_and_each_keeps_its_limit", keys),
    ("no_two_calls_take_the_last_place", places),
    ("no_more_wait_for_a_place_than_may", waiters),
    ("what_is_kept_for_the_important_is_not_given_away", shedding),
    ("a_throttle_counts_each_call_once", throttled),
];

fn main() {
    // A wait has a timer, which wants to know whose it is. Nothing runs on it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _timers = runtime.enter();
    for (name, check) in CHECKS {
        let mut config = Config::new();
        // Weaker orderings are only used for counts that nothing depends on.
        config.silence_warnings = true;
        Runner::new(RandomScheduler::new(SCHEDULES), config).run(check);
        println!("shuttle {name} ... ok under {SCHEDULES} schedules");
    }
}

/// Runs `work` on three threads at the same time and sums what they give.
fn together(work: impl Fn(u32) -> u32 + Clone + Send + 'static) -> u32 {
    let threads: Vec<_> = (0..3)
        .map(|nth| {
            let work = work.clone();
            thread::spawn(move || work(nth))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

fn breaker_settings() -> breaker::BreakerSettings {
    breaker::BreakerSettings {
        consecutive_failures: 2,
        half_open_permits: 2,
        successes_to_close: 2,
        ..breaker::BreakerSettings::default()
    }
}

fn half_open() {
    let breaker = breaker::CircuitBreaker::new("shuttle", breaker_settings());
    let now = Instant::now();
    for _ in 0..2 {
        breaker.try_acquire(now).unwrap().failure(Duration::ZERO);
    }
    assert_eq!(breaker.state(), breaker::State::Open);
    let later = now + breaker.settings().open_max;
    let shared = breaker.clone();
    together(move |nth| {
        for round in 0..2 {
            if let Ok(permit) = shared.try_acquire(later) {
                let probes = shared.stats().probes;
                assert!(probes <= 2, "{probes} probes");
                match (nth + round) % 3 {
                    0 => permit.success(Duration::ZERO),
                    1 => drop(permit),
                    _ => permit.ignore(),
                }
            }
        }
        0
    });
    assert_eq!(breaker.stats().probes, 0, "every place was given back");
}

fn window() {
    let settings = breaker::BreakerSettings { consecutive_failures: 0, ..breaker_settings() };
    let breaker = breaker::CircuitBreaker::new("shuttle", settings);
    let shared = breaker.clone();
    together(move |nth| {
        for n in 0..3 {
            let permit = shared.try_acquire(Instant::now()).unwrap();
            if (n + nth) % 3 == 0 {
                permit.failure(Duration::ZERO);
            } else {
                permit.success(Duration::ZERO);
            }
        }
        0
    });
    assert_eq!((breaker.stats().calls, breaker.stats().failures), (9, 3));
}

fn late() {
    let breaker = breaker::CircuitBreaker::new("shuttle", breaker_settings());
    let shared = breaker.clone();
    let admitted = together(move |_| {
        let mut admitted = 0;
        for _ in 0..2 {
            if let Ok(permit) = shared.try_acquire(Instant::now()) {
                permit.failure(Duration::ZERO);
                admitted += 1;
            }
        }
        admitted
    });
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.opened), (breaker::State::Open, 1));
    assert_eq!(u64::from(admitted), 2 + stats.late, "two opened it, the others came late");
    assert_eq!(u64::from(admitted) + stats.rejected, 6);
}

fn watcher() {
    let breaker = breaker::CircuitBreaker::new("shuttle", breaker_settings());
    let watch = breaker.subscribe();
    let shared = breaker.clone();
    together(move |nth| {
        match nth {
            0 => shared.force_open(),
            1 => shared.reset(),
            _ => shared.metrics_only(),
        }
        0
    });
    assert_eq!(*watch.borrow(), breaker.state());
}

fn budget() {
    let budget = retry::RetryBudget::new(retry::BudgetSettings {
        ratio: 1.0,
        min_per_second: 1,
        ttl: Duration::from_secs(3),
    });
    let shared = budget.clone();
    let granted = together(move |_| {
        shared.deposit();
        (0..3).map(|_| u32::from(shared.withdraw())).sum()
    });
    let stats = budget.stats();
    assert!((3..=6).contains(&granted), "{granted} for 3 requests and 3 in reserve");
    assert_eq!(u64::from(granted), stats.retries);
    assert_eq!((stats.requests, stats.retries + stats.refused), (3, 9));
    assert_eq!(budget.balance(), 6 - stats.retries);
}

fn slow(burst: u32) -> rate_limit::RateLimit {
    rate_limit::RateLimit::new(1, Duration::from_secs(3_600)).burst(burst)
}

fn rate() {
    let limiter = rate_limit::RateLimiter::new(slow(4));
    let shared = limiter.clone();
    let passed = together(move |_| (0..3).map(|_| u32::from(shared.check().is_ok())).sum());
    assert_eq!((passed, limiter.rejected()), (4, 5));
}

fn keys() {
    let limits = rate_limit::KeyedRateLimit::new(slow(1), 2);
    let shared = limits.clone();
    let passed =
        together(move |nth| (0..3).map(|n| u32::from(shared.check((n + nth) % 4).is_ok())).sum());
    // Two keys have their own, the others share one.
    assert_eq!((passed, limits.keys()), (3, 2));
}

fn places() {
    let settings = adaptive::AdaptiveSettings {
        min_limit: 2,
        initial_limit: 2,
        max_limit: 2,
        ..adaptive::AdaptiveSettings::default()
    };
    let limit = adaptive::AdaptiveLimit::new(settings);
    let shared = limit.clone();
    together(move |nth| {
        for _ in 0..2 {
            if let Ok(place) = shared.try_enter(Instant::now()) {
                let in_flight = shared.stats().in_flight;
                assert!(in_flight <= 2, "{in_flight} in flight");
                if nth == 0 {
                    let verdict = Verdict {
                        class: Class::Success,
                        latency: Duration::ZERO,
                        retry_after: None,
                    };
                    place.settle(verdict);
                }
            }
        }
        0
    });
    assert_eq!(limit.stats().in_flight, 0);
}

fn waiters() {
    let bulkhead = bulkhead::Bulkhead::new(bulkhead::BulkheadSettings {
        max_concurrent: 1,
        max_waiting: 2,
        max_wait: Duration::from_secs(3_600),
    });
    let shared = bulkhead.clone();
    let (waited, refused) = (shuttle::sync::Arc::default(), shuttle::sync::Arc::default());
    let counts: (shuttle::sync::Arc<AtomicU64>, shuttle::sync::Arc<AtomicU64>) =
        (shuttle::sync::Arc::clone(&waited), shuttle::sync::Arc::clone(&refused));
    // Nobody leaves, so all others wait or are refused.
    let _place = poll(std::pin::pin!(bulkhead.enter())).unwrap().unwrap();
    together(move |_| {
        for _ in 0..2 {
            let mut entering = std::pin::pin!(shared.enter());
            match poll(entering.as_mut()) {
                None => {
                    assert!((1..=2).contains(&shared.waiting()), "{} wait", shared.waiting());
                    counts.0.fetch_add(1, Ordering::SeqCst);
                }
                Some(Ok(_)) => panic!("there is one place"),
                Some(Err(_)) => {
                    counts.1.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        0
    });
    let (waited, refused) = (waited.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
    assert_eq!((waited + refused, bulkhead.rejected()), (6, refused));
    assert_eq!(bulkhead.waiting(), 0, "who gives up leaves the queue");
}

/// What a future says when it is asked once.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let waker = std::task::Waker::noop();
    match future.poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn shedding() {
    let adaptive = adaptive::AdaptiveSettings {
        min_limit: 5,
        initial_limit: 5,
        max_limit: 5,
        ..adaptive::AdaptiveSettings::default()
    };
    let shedder = shed::Shedder::new(shed::ShedSettings {
        adaptive,
        normal_share: 0.8,
        sheddable_share: 0.6,
        ..shed::ShedSettings::default()
    });
    let shared = shedder.clone();
    // Each priority has more calls than there is room for, and none leaves.
    let taken = together(move |nth| {
        let priority =
            [shed::Priority::Sheddable, shed::Priority::Normal, shed::Priority::Critical]
                [nth as usize];
        let places: Vec<_> =
            (0..6).filter_map(|_| shared.try_enter(priority, Instant::now()).ok()).collect();
        let taken = places.len();
        // Kept to the end of the check.
        std::mem::forget(places);
        taken as u32
    });
    let stats = shedder.stats();
    assert_eq!(taken, 5, "a critical call finds the last place, whoever came before");
    assert_eq!(stats.adaptive.in_flight, 5);
    let shed = stats.sheddable + stats.normal + stats.critical;
    assert_eq!(shed, 18 - 5);
    assert!(stats.sheddable >= 3 && stats.normal >= 2 && stats.critical >= 1, "{stats:?}");
}

fn throttled() {
    let throttle = throttle::Throttle::new(throttle::ThrottleSettings::default());
    let shared = throttle.clone();
    let sent = together(move |nth| {
        let mut sent = 0;
        for _ in 0..3 {
            if let Ok(permit) = shared.try_acquire(Instant::now()) {
                let class = if nth == 0 { Class::Failure } else { Class::Success };
                permit.settle(Verdict { class, latency: Duration::ZERO, retry_after: None });
                sent += 1;
            }
        }
        sent
    });
    let stats = throttle.stats();
    // Few are protected from being held back.
    assert_eq!((sent, stats.refused), (9, 0));
    assert_eq!((stats.requests, stats.accepts), (9, 6));
}
