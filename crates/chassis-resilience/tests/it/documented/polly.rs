//! Polly v8, <https://www.pollydocs.org>, and Microsoft.Extensions.Http.Resilience.

use chassis_resilience::{
    BoxError, BreakerSettings, Classified, Decision, Hedge, HedgeLayer, HedgeSettings, RetryBudget,
    RetryLayer, RetrySettings, State,
    chaos::{Chaos, ChaosLayer, Fault, Injected, Rule},
    fallback::{Degraded, FallbackLayer, Otherwise},
};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_test::mock;

use super::{Always, SECOND, feed, rates};
use crate::{MS, next};

#[tokio::test(start_paused = true)]
async fn it_breaks_on_failure_ratio_with_minimum_throughput_in_the_sampling_duration() {
    let breaker = rates(BreakerSettings {
        failure_rate: 0.1,
        min_calls: 100,
        window: 30 * SECOND,
        ..BreakerSettings::default()
    });
    feed(&breaker, &"s".repeat(89));
    feed(&breaker, "ffffffffff");
    assert_eq!(breaker.state(), State::Closed, "99 calls");
    feed(&breaker, "f");
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn isolate_holds_it_open_until_it_is_closed_by_hand() {
    let breaker = rates(BreakerSettings::default());
    breaker.force_open();
    tokio::time::advance(86_400 * SECOND).await;
    assert_eq!(feed(&breaker, "s"), 0);
    breaker.reset();
    assert_eq!(feed(&breaker, "s"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_probe_decides_after_the_break_duration() {
    let settings = BreakerSettings {
        min_calls: 1,
        half_open_permits: 1,
        successes_to_close: 1,
        ..BreakerSettings::default()
    };
    for (probe, state) in [("s", State::Closed), ("f", State::Open)] {
        let breaker = rates(settings);
        feed(&breaker, "f");
        tokio::time::advance(settings.open_for).await;
        let held = breaker.try_acquire(Instant::now()).unwrap();
        assert!(breaker.try_acquire(Instant::now()).is_err(), "one at a time");
        drop(held);
        feed(&breaker, probe);
        assert_eq!(breaker.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn hedging_in_latency_mode_takes_the_first_good_result() {
    let settings = HedgeSettings { min_samples: 1, min_delay: 20 * MS, ..HedgeSettings::default() };
    let hedge = Hedge::new(settings);
    let layer = HedgeLayer::new(Always(Decision::Done), hedge.clone(), RetryBudget::default());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let service = layer.layer(callee);
    let call = tokio::spawn(service.clone().oneshot(0));
    next(&mut handle).await.1.send_response(0);
    call.await.unwrap().unwrap();
    let call = tokio::spawn(service.oneshot(1));
    let (_, _slow) = next(&mut handle).await;
    let (_, fast) = next(&mut handle).await;
    fast.send_response(2);
    assert_eq!((call.await.unwrap().unwrap(), hedge.stats().won), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn retry_honours_retry_after() {
    let policy = Always(Decision::RetryAfter(3 * SECOND));
    let layer = RetryLayer::new(policy, RetrySettings::default(), RetryBudget::default());
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(layer.layer(callee).oneshot(0));
    next(&mut handle).await.1.send_error("busy");
    let began = Instant::now();
    next(&mut handle).await.1.send_response(1);
    assert!(began.elapsed() >= 3 * SECOND);
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn fallback_gives_a_substitute_and_says_so() {
    let layer = FallbackLayer::new(Otherwise::new(|| 7), Classified::errors());
    let callee = service_fn(|_: u32| async { Err::<u32, BoxError>("down".into()) });
    let answer = layer.layer(callee).oneshot(1).await.unwrap();
    assert_eq!((answer.value, answer.degraded), (7, Some(Degraded::Default)));
}

#[tokio::test(start_paused = true)]
async fn chaos_faults_are_injected_at_the_injection_rate() {
    let chaos = Chaos::enabled();
    let rule = Rule { target: "*".into(), share: 0.3, fault: Fault::Error, lasts: 60 * SECOND };
    chaos.set("faults", rule).unwrap();
    let callee = service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
    let target = |_: &u32| "callee".to_owned();
    let service = ChaosLayer::new(chaos, target, |request: &u32| Some(*request)).layer(callee);
    let mut failed = 0;
    for _ in 0..10_000 {
        failed += u32::from(service.clone().oneshot(1).await.is_err_and(|e| e.is::<Injected>()));
    }
    assert!((2_700..3_300).contains(&failed), "{failed}");
}
