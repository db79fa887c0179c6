//! The whole stack: the order of the layers is what is tested here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError, BulkheadLayer, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Classified,
    Decision, Elapsed, Profile, RetryBudget, RetryLayer, RetryPolicy, State, TimeoutLayer,
};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};

use crate::{MS, cause};

#[derive(Clone)]
struct Reads;

impl RetryPolicy<u32, u32, BoxError> for Reads {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn decide(&self, _: u32, _: &u32, result: Result<&u32, &BoxError>) -> Decision {
        match result {
            Ok(_) => Decision::Done,
            Err(_) => Decision::Retry,
        }
    }
}

fn stack<S>(callee: S, breaker: &CircuitBreaker) -> BoxCloneService<u32, u32, BoxError>
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let numbers = Profile::Standard.settings();
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::new(numbers.timeout))
        .layer(RetryLayer::new(Reads, numbers.retry, RetryBudget::new(numbers.budget)))
        .layer(BulkheadLayer::new(10, 100 * MS))
        .layer(CircuitBreakerLayer::new(breaker.clone(), Classified::errors()))
        .layer(TimeoutLayer::new(numbers.attempt_timeout))
        .service(callee);
    BoxCloneService::new(stack)
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_never_answers_opens_the_circuit() {
    let breaker = CircuitBreaker::new("greeter", Profile::Standard.settings().breaker);
    let callee = service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>());
    let service = stack(callee, &breaker);
    let started = Instant::now();
    let error = service.clone().oneshot(1).await.unwrap_err();
    assert_eq!(
        cause::<Elapsed>(error).after,
        Duration::from_secs(5),
        "the total timeout bounds all attempts"
    );
    assert!(started.elapsed() <= Duration::from_secs(5));
    for _ in 0..3 {
        service.clone().oneshot(1).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_recovers_is_used_again() {
    let breaker = CircuitBreaker::new("greeter", Profile::Standard.settings().breaker);
    let down = Arc::new(AtomicU32::new(1));
    let state = down.clone();
    let callee = service_fn(move |request: u32| {
        let down = state.load(Ordering::Relaxed) == 1;
        async move { if down { Err::<u32, BoxError>("down".into()) } else { Ok(request) } }
    });
    let service = stack(callee, &breaker);
    for _ in 0..3 {
        service.clone().oneshot(1).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Open);
    assert!(
        service.clone().oneshot(1).await.unwrap_err().is::<CircuitOpen>(),
        "an open circuit fails fast"
    );

    down.store(0, Ordering::Relaxed);
    tokio::time::advance(breaker.settings().open_for).await;
    for _ in 0..3 {
        assert_eq!(service.clone().oneshot(1).await.unwrap(), 1);
    }
    assert_eq!(breaker.state(), State::Closed);
}
