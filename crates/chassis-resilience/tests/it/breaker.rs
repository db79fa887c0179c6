//! Breaker: the permit follows the call, however it ends.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chassis_resilience::{
    BoxError, BreakerEvent, BreakerSettings, CircuitBreaker, CircuitBreakerLayer, CircuitOpen,
    Class, Classified, Classify, State,
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_test::mock;

use crate::{MS, cause, next, silence};

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new(
        "greeter",
        BreakerSettings {
            consecutive_failures: 2,
            half_open_permits: 1,
            successes_to_close: 2,
            ..BreakerSettings::default()
        },
    )
}

/// Failures without latency: the clock is paused, so no call can have taken time.
fn fail(breaker: &CircuitBreaker, times: u32) {
    for _ in 0..times {
        let permit = breaker.try_acquire(Instant::now()).unwrap();
        permit.failure(Duration::ZERO);
    }
}

/// Opens it and lets its open time pass.
async fn open_and_wait(breaker: &CircuitBreaker) {
    fail(breaker, 2);
    assert_eq!(breaker.state(), State::Open);
    tokio::time::advance(breaker.settings().open_for).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_keeps_calls_from_the_callee() {
    let breaker = breaker();
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);
    for _ in 0..2 {
        let call = tokio::spawn(service.clone().oneshot(1));
        let (_, answer) = next(&mut handle).await;
        answer.send_error("down");
        assert_eq!(call.await.unwrap().unwrap_err().to_string(), "down");
    }
    let refused = cause::<CircuitOpen>(service.clone().oneshot(1).await.unwrap_err());
    assert!(refused.retry_in > Duration::ZERO);
    assert!(refused.retry_in <= breaker.settings().open_for);
    silence(&mut handle, MS).await;
}

#[tokio::test(start_paused = true)]
async fn good_probes_close_it() {
    let breaker = breaker();
    let mut watch = breaker.subscribe();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    breaker.on_transition(move |change| {
        record.lock().unwrap().push((change.from, change.to));
    });
    let callee = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);
    open_and_wait(&breaker).await;
    for _ in 0..2 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(*watch.borrow_and_update(), State::Closed);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (State::Closed, State::Open),
            (State::Open, State::HalfOpen),
            (State::HalfOpen, State::Closed),
        ]
    );
    let stats = breaker.stats();
    assert_eq!((stats.transitions, stats.opened), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_gives_the_probe_back() {
    let breaker = breaker();
    open_and_wait(&breaker).await;
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);

    let probe = tokio::spawn(service.clone().oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    assert_eq!(breaker.stats().probes, 1);
    let refused = cause::<CircuitOpen>(service.clone().oneshot(2).await.unwrap_err());
    assert_eq!(refused.retry_in, Duration::ZERO);

    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.stats().probes, 0);
    let call = tokio::spawn(service.clone().oneshot(3));
    let (request, answer) = next(&mut handle).await;
    answer.send_response(request);
    assert_eq!(call.await.unwrap().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_callee_gives_the_probe_back() {
    let breaker = breaker();
    open_and_wait(&breaker).await;
    let callee = service_fn(|_: u32| async { panic!("on purpose") as Result<u32, BoxError> });
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);
    assert!(tokio::spawn(service.oneshot(1)).await.unwrap_err().is_panic());
    assert_eq!(breaker.stats().probes, 0);
    assert!(breaker.would_permit(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_the_opening_changes_nothing() {
    let breaker = breaker();
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);
    let early = tokio::spawn(service.clone().oneshot(1));
    let (_, answer) = next(&mut handle).await;
    open_and_wait(&breaker).await;
    let probe = breaker.try_acquire(Instant::now()).unwrap();
    assert_eq!(breaker.state(), State::HalfOpen);

    answer.send_error("late");
    assert!(early.await.unwrap().is_err());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.stats().late, 1);
    probe.success(MS);
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn the_classifier_decides_what_a_failure_is() {
    let breaker = breaker();
    let classify = |result: Result<&u32, &BoxError>| match result {
        Ok(status) if *status >= 500 => Class::Failure,
        Ok(_) => Class::Success,
        Err(_) => Class::Ignore,
    };
    let callee = service_fn(|status: u32| async move {
        if status == 0 { Err::<u32, BoxError>("cancelled".into()) } else { Ok(status) }
    });
    let service = CircuitBreakerLayer::new(breaker.clone(), classify).layer(callee);
    for _ in 0..10 {
        service.clone().oneshot(0).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Closed);
    for _ in 0..2 {
        assert_eq!(service.clone().oneshot(503).await.unwrap(), 503);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_cannot_get_ready_counts() {
    let breaker = breaker();
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = CircuitBreakerLayer::new(breaker.clone(), Classified::errors()).layer(callee);
    handle.send_error("no connection");
    assert!(service.oneshot(1).await.is_err());
    assert_eq!(breaker.stats().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn the_window_slides_with_the_paused_clock() {
    let breaker = breaker();
    fail(&breaker, 1);
    assert_eq!(breaker.stats().failures, 1);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(breaker.stats().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_use_the_breaker() {
    let breaker = breaker();
    let handle = breaker.clone();
    breaker.on_transition(move |change| {
        if change.to == State::Open {
            handle.disable();
        }
    });
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Disabled);
    assert_eq!(*breaker.subscribe().borrow(), State::Disabled);
}

#[test]
fn a_watcher_ends_with_the_real_state_whoever_was_last() {
    let breaker = breaker();
    let watch = breaker.subscribe();
    for _ in 0..1_000 {
        std::thread::scope(|scope| {
            scope.spawn(|| breaker.force_open());
            scope.spawn(|| breaker.reset());
        });
        assert_eq!(*watch.borrow(), breaker.state());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_classifier_gives_the_probe_back() {
    let breaker = breaker();
    open_and_wait(&breaker).await;
    let classify = |_: Result<&u32, &BoxError>| -> Class { panic!("on purpose") };
    let callee = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
    let service = CircuitBreakerLayer::new(breaker.clone(), classify).layer(callee);
    assert!(tokio::spawn(service.oneshot(1)).await.unwrap_err().is_panic());
    assert_eq!((breaker.state(), breaker.stats().probes), (State::HalfOpen, 0));
}

/// Every answer is a failure that asks for a pause.
#[derive(Clone)]
struct Busy(Duration);

impl Classify<u32, BoxError> for Busy {
    fn classify(&self, _: Result<&u32, &BoxError>) -> Class {
        Class::Overloaded
    }

    fn retry_after(&self, _: Result<&u32, &BoxError>) -> Option<Duration> {
        Some(self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_extends_the_open_time_up_to_its_cap() {
    for (asked, least) in [(30_000 * MS, 30_000 * MS), (3_600_000 * MS, 60_000 * MS)] {
        let settings = BreakerSettings { min_calls: 10, ..BreakerSettings::default() };
        let breaker = CircuitBreaker::new("greeter", settings);
        let callee = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
        let service = CircuitBreakerLayer::new(breaker.clone(), Busy(asked)).layer(callee);
        for _ in 0..9 {
            service.clone().oneshot(1).await.unwrap();
        }
        assert_eq!(breaker.state(), State::Closed, "overload alone is not a row of failures");
        service.clone().oneshot(1).await.unwrap();
        assert_eq!(breaker.state(), State::Open, "but it counts for the rate");
        let open = cause::<CircuitOpen>(service.clone().oneshot(1).await.unwrap_err());
        assert!(open.retry_in >= least, "{:?}", open.retry_in);
        assert!(open.retry_in <= least + settings.open_for / 2, "{:?}", open.retry_in);
    }
}

#[tokio::test(start_paused = true)]
async fn settings_change_at_run_time() {
    let breaker = breaker();
    fail(&breaker, 1);
    let settings = BreakerSettings { consecutive_failures: 3, ..breaker.settings() };
    breaker.update(settings).unwrap();
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Closed, "the row begins anew with its new length");
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);

    // What changes while it is open holds when it is closed again.
    let settings = BreakerSettings { consecutive_failures: 1, successes_to_close: 1, ..settings };
    breaker.update(settings).unwrap();
    tokio::time::advance(settings.open_for).await;
    breaker.try_acquire(Instant::now()).unwrap().success(MS);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);

    let wrong = BreakerSettings { failure_rate: 2.0, ..settings };
    assert_eq!(breaker.update(wrong).unwrap_err().setting, "failure_rate");
    assert_eq!(breaker.settings(), settings);
}

#[tokio::test(start_paused = true)]
async fn transitions_and_rejections_are_a_stream_and_hooks() {
    let breaker = breaker();
    let mut events = breaker.events();
    let rejected = Arc::new(Mutex::new(0));
    let count = rejected.clone();
    breaker.on_rejection(move |_| *count.lock().unwrap() += 1);
    fail(&breaker, 2);
    for _ in 0..2 {
        breaker.try_acquire(Instant::now()).unwrap_err();
    }
    let Ok(BreakerEvent::Transition(change)) = events.recv().await else { panic!("a transition") };
    assert_eq!((&*change.breaker, change.from, change.to), ("greeter", State::Closed, State::Open));
    for _ in 0..2 {
        assert!(matches!(events.recv().await, Ok(BreakerEvent::Rejected(_))));
    }
    assert_eq!(*rejected.lock().unwrap(), 2);
    for _ in 0..100 {
        breaker.try_acquire(Instant::now()).unwrap_err();
    }
    assert!(events.recv().await.is_err(), "a slow listener is told that it has missed some");
}
