//! Tokens in a NATS bucket keep the contract of the store, and a limit outlives its server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use chassis_messaging::tokens::{NatsTokenStore, TokenSettings};
use chassis_resilience::RateLimit;
use chassis_resilience::rate_limit::shared::{
    Grant, OnStoreDown, SharedRateLimit, SharedSettings, TokenStore, conformance,
};
use chassis_test::eventually;
use chassis_test::servers::Nats;

const SOON: Duration = Duration::from_secs(40);

fn store(nats: &Nats) -> NatsTokenStore {
    NatsTokenStore::new(nats.url(), TokenSettings::default()).unwrap()
}

/// So slow that no token comes back while a test runs.
fn slow(burst: u32) -> RateLimit {
    RateLimit::new(1, Duration::from_secs(3_600)).burst(burst)
}

#[tokio::test]
async fn the_contract_holds_on_nats() {
    let nats = Nats::start().await;
    conformance::run_all(store(&nats)).await.unwrap();
}

#[tokio::test]
async fn two_instances_get_no_more_together() {
    let nats = Nats::start().await;
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let store = store(&nats);
        takers.spawn(async move {
            let mut taken = 0;
            while let Grant::Tokens(tokens) = store.take("both", slow(60), 2).await.unwrap() {
                taken += tokens;
            }
            taken
        });
    }
    let taken: Vec<u32> = takers.join_all().await;
    assert_eq!(taken.iter().sum::<u32>(), 60, "{taken:?}");
}

#[tokio::test]
async fn the_keys_are_bounded_and_the_idle_ones_go() {
    let nats = Nats::start().await;
    let settings = TokenSettings { max_keys: 10, ..TokenSettings::default() };
    let store = NatsTokenStore::new(nats.url(), settings).unwrap();
    for n in 0..30 {
        let grant = store.take(&format!("key {n}"), slow(1), 1).await.unwrap();
        assert_eq!(grant, Grant::Tokens(1), "{n}");
    }
    let last = store.take("key 29", slow(1), 1).await.unwrap();
    assert!(matches!(last, Grant::Wait(_)), "a recent one is known: {last:?}");
    let first = store.take("key 0", slow(1), 1).await.unwrap();
    assert_eq!(first, Grant::Tokens(1), "the oldest one is forgotten");
    let error = store.take("key", RateLimit::new(1, Duration::from_secs(1 << 40)), 1).await;
    assert!(error.is_err(), "what takes longer to refill than it remembers is refused");
}

/// While the server is away each instance keeps its share, and afterwards the limit is shared
/// again.
#[tokio::test]
async fn a_server_that_is_away_leaves_each_instance_its_share() {
    let nats = Nats::start().await;
    let settings = SharedSettings {
        lease_tokens: 1,
        store_timeout: Duration::from_millis(500),
        retry_store_after: Duration::from_millis(100),
        on_store_down: OnStoreDown::LocalShare { instances: 4 },
        ..SharedSettings::default()
    };
    let limit = SharedRateLimit::new(store(&nats), slow(40), settings);
    eventually("the store gives", SOON, async || {
        limit.check("caller").await.unwrap();
        (limit.stats().local == 0).then_some(())
    })
    .await;

    nats.stop();
    let mut passed = 0;
    eventually("the share is used up", SOON, async || match limit.check("other").await {
        Ok(()) => {
            passed += 1;
            None
        }
        Err(_) => Some(()),
    })
    .await;
    assert_eq!(passed, 10, "a quarter of forty");
    assert!(limit.stats().failures > 0 && limit.stats().local > 0, "{:?}", limit.stats());

    nats.restart().await;
    let mut turn = 0;
    eventually("the store decides again", SOON, async || {
        turn += 1;
        let before = limit.stats();
        let _ = limit.check(&format!("caller {turn}")).await;
        let now = limit.stats();
        let asked = now.asked > before.asked;
        (asked && now.failures == before.failures && now.local == before.local).then_some(())
    })
    .await;
}
