//! Waits for a condition instead of a time.
//!
//! A sleep in a test is either too short on a busy machine or too long on an idle one. A
//! bounded poll is as fast as the system and as patient as the bound.

use std::time::Duration;

use tokio::time::Instant;

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `check` until it gives a value, and returns the value.
///
/// `what` names the condition for the reader of a failure, such as `"the item is stored"`.
/// Under a paused clock the pauses cost nothing. A `check` that hangs is cut off at the
/// bound too. Dropping the future drops the running check.
///
/// # Panics
/// When `within` has passed without a value.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + within;
    loop {
        match tokio::time::timeout_at(end, check()).await {
            Ok(Some(value)) => return value,
            Ok(None) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            Ok(None) | Err(_) => panic!("not within {within:?}: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_gives_the_first_value() {
        let mut looks = 0;
        let value = eventually("the third look", Duration::from_secs(1), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: it never comes")]
    async fn it_panics_with_the_condition() {
        eventually("it never comes", Duration::from_secs(1), async || None::<()>).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: it hangs")]
    async fn it_cuts_off_a_check_that_hangs() {
        eventually("it hangs", Duration::from_secs(1), async || {
            std::future::pending::<()>().await;
            None::<()>
        })
        .await;
    }
}
