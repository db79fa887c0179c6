//! Rate limit: refused at once, with the time to come back.

use chassis_resilience::{
    BoxError, KeyedRateLimit, KeyedRateLimitLayer, RateLimit, RateLimitLayer, RateLimited,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{MS, cause};

async fn echo(request: u32) -> Result<u32, BoxError> {
    Ok(request)
}

#[tokio::test(start_paused = true)]
async fn calls_above_the_limit_are_told_when_to_come_back() {
    let layer = RateLimitLayer::new(RateLimit::per_second(10).burst(2));
    let service = layer.layer(service_fn(echo));
    for _ in 0..2 {
        service.clone().oneshot(1).await.unwrap();
    }
    let limited = cause::<RateLimited>(service.clone().oneshot(1).await.unwrap_err());
    assert_eq!(limited.retry_in, 100 * MS);
    assert_eq!(layer.handle().rejected(), 1);

    tokio::time::advance(limited.retry_in).await;
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_the_limit() {
    let layer = RateLimitLayer::new(RateLimit::per_second(1));
    layer.layer(service_fn(echo)).oneshot(1).await.unwrap();
    assert!(layer.layer(service_fn(echo)).oneshot(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_limit() {
    let limits = KeyedRateLimit::new(RateLimit::per_second(1), 100);
    let key = |request: &u32| (*request != 0).then_some(*request);
    let service = KeyedRateLimitLayer::new(limits.clone(), key).layer(service_fn(echo));
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.clone().oneshot(1).await.is_err());
    assert!(service.clone().oneshot(2).await.is_ok());
    for _ in 0..5 {
        assert!(service.clone().oneshot(0).await.is_ok(), "no key, no limit");
    }
    assert_eq!((limits.keys(), limits.rejected()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_million_keys_take_no_more_room_than_allowed() {
    let limits = KeyedRateLimit::new(RateLimit::per_second(1), 10_000);
    let passed = (0..1_000_000u32).filter(|key| limits.check(*key).is_ok()).count();
    assert_eq!(limits.keys(), 10_000);
    assert_eq!(passed, 10_001, "all the newcomers share one limit");
    assert_eq!(limits.rejected(), 989_999);
}
