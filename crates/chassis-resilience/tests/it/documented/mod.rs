//! What others document of their layers, shown of ours: a file for each source, a test for each
//! behaviour. `docs/src/resilience.md` lists them.
//!
//! Where ours differs on purpose, the test shows what ours does and says so.

mod envoy;
mod finagle;
mod go_zero;
mod grpc;
mod polly;
mod resilience4j;

use std::time::Duration;

use chassis_resilience::{
    BoxError, BreakerSettings, BudgetSettings, CircuitBreaker, Decision, HedgePolicy, RetryBudget,
    RetryPolicy,
};
use tokio::time::Instant;

use crate::MS;

const SECOND: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_millis(100);

/// A breaker without the rule of consecutive failures.
fn rates(settings: BreakerSettings) -> CircuitBreaker {
    CircuitBreaker::new("documented", BreakerSettings { consecutive_failures: 0, ..settings })
}

/// Makes calls: s succeeds, f fails, l is slow, i is ignored, d is dropped. How many were made.
fn feed(breaker: &CircuitBreaker, calls: &str) -> usize {
    let mut made = 0;
    for call in calls.chars() {
        let Ok(permit) = breaker.try_acquire(Instant::now()) else {
            continue;
        };
        made += 1;
        match call {
            's' => permit.success(MS),
            'f' => permit.failure(MS),
            'l' => permit.success(SLOW),
            'i' => permit.ignore(),
            _ => drop(permit),
        }
    }
    made
}

/// The same decision about every error, and safe to do twice.
#[derive(Clone)]
struct Always(Decision);

impl RetryPolicy<u32, u32, BoxError> for Always {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn decide(&self, _: u32, _: &u32, result: Result<&u32, &BoxError>) -> Decision {
        if result.is_ok() { Decision::Done } else { self.0 }
    }

    fn mark_attempt(&self, request: &mut u32, attempt: u32) {
        *request = attempt;
    }
}

impl<E> HedgePolicy<u32, u32, E> for Always {
    fn clone_request(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

fn budget(ratio: f64, min_per_second: u32) -> RetryBudget {
    RetryBudget::new(BudgetSettings { ratio, min_per_second, ttl: 10 * SECOND })
}
