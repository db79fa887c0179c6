//! The contract of a [`TokenStore`]; a store is done when it passes.
//!
//! The rates are slow enough for a store behind a network: a test that counts must not depend
//! on how long a request takes. Nothing here waits.

use std::{sync::Arc, time::Duration};

use super::{Grant, TokenStore};
use crate::{BoxError, rate_limit::RateLimit};

/// Runs all of it against an empty store.
///
/// # Errors
/// Says what does not hold, or what the store failed with.
pub async fn run_all(store: impl TokenStore) -> Result<(), BoxError> {
    let store = Arc::new(store);
    a_burst_is_there_at_once_and_then_it_is_refused(&*store).await?;
    no_more_is_given_than_there_is(&*store).await?;
    keys_do_not_disturb_each_other(&*store).await?;
    any_text_is_a_key(&*store).await?;
    takers_at_the_same_time_get_no_more_together(store.clone()).await?;
    tokens_come_back_with_time(&*store).await
}

/// So slow that no token comes back while a test runs.
fn slow(burst: u32) -> RateLimit {
    RateLimit::new(1, Duration::from_secs(3_600)).burst(burst)
}

fn holds(holds: bool, what: &str) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(what.into()) }
}

async fn a_burst_is_there_at_once_and_then_it_is_refused(
    store: &impl TokenStore,
) -> Result<(), BoxError> {
    for _ in 0..3 {
        let grant = store.take("burst", slow(3), 1).await?;
        holds(grant == Grant::Tokens(1), &format!("a burst of 3 gives 1 three times: {grant:?}"))?;
    }
    let Grant::Wait(wait) = store.take("burst", slow(3), 1).await? else {
        return Err("a fourth is refused".into());
    };
    let hour = Duration::from_secs(3_600);
    let soon = Duration::from_secs(60);
    holds(wait <= hour && wait > hour - soon, &format!("an hour's interval says {wait:?}"))
}

async fn no_more_is_given_than_there_is(store: &impl TokenStore) -> Result<(), BoxError> {
    let grant = store.take("more", slow(5), 3).await?;
    holds(grant == Grant::Tokens(3), &format!("3 of 5: {grant:?}"))?;
    let grant = store.take("more", slow(5), 100).await?;
    holds(grant == Grant::Tokens(2), &format!("the 2 that are left: {grant:?}"))?;
    let grant = store.take("more", slow(5), 1).await?;
    holds(matches!(grant, Grant::Wait(_)), &format!("nothing is left: {grant:?}"))
}

async fn keys_do_not_disturb_each_other(store: &impl TokenStore) -> Result<(), BoxError> {
    for key in ["one", "two", "ONE"] {
        let grant = store.take(key, slow(2), 5).await?;
        holds(grant == Grant::Tokens(2), &format!("{key} has its own: {grant:?}"))?;
    }
    Ok(())
}

async fn any_text_is_a_key(store: &impl TokenStore) -> Result<(), BoxError> {
    let long = "k".repeat(200);
    for key in ["", "a b.c*>:/'\";--", "ключ", &long] {
        let grant = store.take(key, slow(1), 1).await?;
        holds(grant == Grant::Tokens(1), &format!("{key:?} is a key: {grant:?}"))?;
        let grant = store.take(key, slow(1), 1).await?;
        holds(matches!(grant, Grant::Wait(_)), &format!("{key:?} is the same key: {grant:?}"))?;
    }
    Ok(())
}

async fn takers_at_the_same_time_get_no_more_together(
    store: Arc<impl TokenStore>,
) -> Result<(), BoxError> {
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        takers.spawn(async move {
            let mut taken = 0;
            for _ in 0..8 {
                if let Grant::Tokens(tokens) = store.take("crowd", slow(40), 3).await? {
                    taken += tokens;
                }
            }
            Ok::<u32, BoxError>(taken)
        });
    }
    let mut taken = 0;
    while let Some(taker) = takers.join_next().await {
        taken += taker??;
    }
    holds(taken == 40, &format!("16 takers got {taken} of 40 tokens"))
}

async fn tokens_come_back_with_time(store: &impl TokenStore) -> Result<(), BoxError> {
    let limit = RateLimit::per_second(20).burst(2);
    let mut taken = 0u32;
    let began = tokio::time::Instant::now();
    while taken < 12 {
        match store.take("time", limit, 2).await? {
            Grant::Tokens(tokens) => taken += tokens,
            Grant::Wait(wait) => {
                holds(wait <= limit.refill(), &format!("{wait:?} is longer than a refill"))?;
                tokio::time::sleep(wait).await;
            }
        }
        holds(began.elapsed() < Duration::from_secs(30), "12 tokens came within 30 s")?;
    }
    // Ten intervals of 50 ms after the burst; clocks may differ by a little.
    let least = Duration::from_millis(450);
    let took = began.elapsed();
    holds(took >= least, &format!("{taken} tokens at 20 a second in {took:?}"))
}
