//! Timeout: silence becomes an error, and the call is dropped.

use std::time::Duration;

use chassis_resilience::{Elapsed, TimeoutLayer};
use tower::{Layer, ServiceExt};
use tower_test::mock;

use crate::{MS, cause, next};

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(TimeoutLayer::new(100 * MS).layer(callee).oneshot(1));
    let (request, answer) = next(&mut handle).await;
    tokio::time::sleep(99 * MS).await;
    answer.send_response(request + 1);
    assert_eq!(call.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn silence_fails_with_the_time_waited() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let started = tokio::time::Instant::now();
    let call = tokio::spawn(TimeoutLayer::new(100 * MS).layer(callee).oneshot(1));
    let (_, _answer) = next(&mut handle).await;
    let error = cause::<Elapsed>(call.await.unwrap().unwrap_err());
    assert_eq!(error.after, 100 * MS);
    assert_eq!(started.elapsed(), 100 * MS);
    assert_eq!(error.to_string(), "no answer within 100ms");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_callee_stays_what_it_is() {
    let (callee, mut handle) = mock::pair::<u32, u32>();
    let call = tokio::spawn(TimeoutLayer::new(Duration::MAX).layer(callee).oneshot(1));
    let (_, answer) = next(&mut handle).await;
    answer.send_error(std::io::Error::other("gone"));
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "gone");
}
