//! Throttle: a callee that accepts a part gets a little more than that part.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use chassis_resilience::{
    BoxError, Class, Classified, RateLimit, RateLimiter, Throttle, ThrottleLayer, Throttled,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::MS;

/// A callee that accepts 250 requests a second; sends `calls` of them, one a millisecond.
async fn calls(throttle: &Throttle, calls: u32, accepts_all: bool) -> u32 {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let capacity = RateLimiter::new(RateLimit::per_second(250).burst(50));
    let callee = service_fn(move |request: u32| {
        let _ = count.fetch_add(1, Ordering::Relaxed);
        let accepted = accepts_all || capacity.check().is_ok();
        async move { if accepted { Ok(request) } else { Err::<u32, BoxError>("quota".into()) } }
    });
    let service = ThrottleLayer::new(throttle.clone(), Classified::errors()).layer(callee);
    for request in 0..calls {
        let result = service.clone().oneshot(request).await;
        if let Err(error) = result {
            assert!(error.is::<Throttled>() || error.to_string() == "quota");
        }
        tokio::time::advance(MS).await;
    }
    seen.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn it_refuses_a_share_and_notices_recovery() {
    let throttle = Throttle::default();
    let sent = calls(&throttle, 10_000, false).await;
    // Without it all 10000 would be sent; with K = 2 it is twice the 2500 that are accepted.
    assert!(sent > 4_000 && sent < 6_500, "{sent}");
    assert!(throttle.stats().share > 0.3, "{:?}", throttle.stats());
    calls(&throttle, 12_000, true).await;
    assert_eq!(throttle.stats().share, 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_about_the_callee_is_not_counted() {
    let throttle = Throttle::default();
    let classify = |_: Result<&u32, &BoxError>| Class::Ignore;
    let callee = service_fn(|_: u32| async { Err::<u32, BoxError>("cancelled".into()) });
    let service = ThrottleLayer::new(throttle.clone(), classify).layer(callee);
    for _ in 0..100 {
        service.clone().oneshot(1).await.unwrap_err();
    }
    let callee = service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>());
    let service = ThrottleLayer::new(throttle.clone(), Classified::errors()).layer(callee);
    for _ in 0..100 {
        assert!(tokio::time::timeout(MS, service.clone().oneshot(1)).await.is_err());
    }
    assert_eq!(throttle.stats().requests, 0);
}
