//! The layers as a user puts them together, under a paused clock.
//!
//! One binary, one file per behaviour: the brains have their own tests beside
//! them, so what is shown here is the skin.

// clippy.toml allows them in test functions; helpers of tests need to be told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod breaker;
mod bulkhead;
mod cache;
mod chaos;
mod documented;
mod fallback;
mod hedge;
mod million;
mod rate_limit;
mod retry;
mod shared_limit;
mod shed;
mod stack;
mod throttle;
mod timeout;

use std::time::Duration;

use chassis_resilience::BoxError;
use tower_test::mock::{Handle, SendResponse};

const MS: Duration = Duration::from_millis(1);

/// The next request that reaches the callee, and the way to answer it.
async fn next(handle: &mut Handle<u32, u32>) -> (u32, SendResponse<u32>) {
    tokio::time::timeout(600_000 * MS, handle.next_request())
        .await
        .expect("a request arrives in time")
        .expect("the caller is still there")
}

/// Asserts that no request reaches the callee for a while.
async fn silence(handle: &mut Handle<u32, u32>, time: Duration) {
    let arrived = tokio::time::timeout(time, handle.next_request()).await;
    assert!(!matches!(arrived, Ok(Some(_))), "no request may arrive");
}

/// The layer's own error inside the boxed one.
fn cause<E: std::error::Error + Copy + 'static>(error: BoxError) -> E {
    *error.downcast_ref::<E>().expect("the layer's own error")
}
