//! The column of layers around a scripted provider, on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::core::{Code, Metrics};
use chassis::resilience::BoxError;
use futures_util::future::join_all;
use shop_payment::config::ProviderConfig;
use shop_payment::domain::{Charge, Money, Verdict, Wish};
use shop_payment::provider::moody::NoAnswer;
use shop_payment::provider::{Ask, Provider};
use tokio::time::Instant;

use crate::support::{assert_refused, good};

fn charge() -> Charge {
    let wish = Wish {
        order_id: "o-1".to_owned(),
        idempotency_key: "k-1".to_owned(),
        amount: Money::new(500, "EUR").unwrap(),
        card_token: "tok_visa".to_owned(),
    };
    Charge::intend("p-1".to_owned(), wish)
}

/// A provider that answers by a script, and counts how often it was asked.
fn scripted<F, Fut>(config: &ProviderConfig, script: F) -> (Provider, Arc<AtomicUsize>)
where
    F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Verdict, BoxError>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |_: Ask| script(count.fetch_add(1, Ordering::SeqCst)));
    (Provider::behind_layers(service, config, &Metrics::default()).unwrap(), asked)
}

async fn no_answer(_: usize) -> Result<Verdict, BoxError> {
    Err(NoAnswer.into())
}

#[tokio::test(start_paused = true)]
async fn two_failures_are_hidden_from_the_caller() {
    let (provider, asked) = scripted(&good(), |call| async move {
        if call < 2 { Err(NoAnswer.into()) } else { Ok(Verdict::Approved) }
    });
    assert_eq!(provider.charge(&charge()).await.unwrap(), Verdict::Approved);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_is_an_answer_and_not_a_failure() {
    let (provider, asked) = scripted(&good(), |_| async { Ok(Verdict::Declined) });
    for _ in 0..100 {
        assert_eq!(provider.charge(&charge()).await.unwrap(), Verdict::Declined);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 100, "none was repeated, none was rejected");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_costs_its_time_and_then_nothing() {
    let (provider, asked) = scripted(&good(), |_| std::future::pending());
    let config = good().client;

    let start = Instant::now();
    let answer = provider.charge(&charge()).await;
    assert_refused(answer, Code::Unavailable, "PROVIDER_UNAVAILABLE");
    let took = start.elapsed();
    assert!((config.attempt_timeout * 3..=config.timeout).contains(&took), "{took:?}");

    // The fifth failure in a row opens the circuit.
    provider.charge(&charge()).await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    let start = Instant::now();
    let answer = provider.charge(&charge()).await;
    let error = assert_refused(answer, Code::Unavailable, "PROVIDER_UNAVAILABLE");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(error.retry_after().is_some(), "says when to come back");
    assert_eq!(asked.load(Ordering::SeqCst), 5, "the provider is left alone");
}

#[tokio::test(start_paused = true)]
async fn the_circuit_closes_when_the_provider_works_again() {
    let (provider, _) = scripted(&good(), |call| async move {
        if call < 5 { Err(NoAnswer.into()) } else { Ok(Verdict::Approved) }
    });
    for _ in 0..2 {
        provider.charge(&charge()).await.unwrap_err();
    }
    let error = provider.charge(&charge()).await.unwrap_err();
    tokio::time::sleep(error.retry_after().unwrap()).await;
    for _ in 0..10 {
        provider.charge(&charge()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_places_are_sent_away_and_the_provider_is_not_blamed() {
    let mut config = good();
    config.client.max_concurrent = 4;
    config.client.max_attempts = 1;
    let (provider, asked) = scripted(&config, |_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Ok(Verdict::Approved)
    });
    let charge = charge();
    let answers = join_all((0..20).map(|_| provider.charge(&charge))).await;
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((served, asked.load(Ordering::SeqCst)), (4, 4));
    // Sixteen refusals of our own, and the circuit is still closed.
    provider.charge(&charge).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_stay_a_share_of_the_calls() {
    let mut config = good();
    // Not what this is about: the circuit stays closed.
    config.client.breaker.consecutive_failures = 1_000;
    config.client.breaker.min_calls = 100_000;
    config.client.max_concurrent = 10_000;
    let (provider, asked) = scripted(&config, no_answer);
    let charge = charge();
    let calls = 400;
    for answer in join_all((0..calls).map(|_| provider.charge(&charge))).await {
        answer.unwrap_err();
    }
    let retries = asked.load(Ordering::SeqCst) - calls;
    // A fifth, and the floor that lets a quiet service retry at all.
    assert!((calls / 5..calls / 5 + 200).contains(&retries), "{retries} retries");
}

#[test]
fn wrong_settings_are_refused_at_the_start() {
    let mut config = good();
    config.client.max_concurrent = 0;
    let service = tower::service_fn(|_: Ask| no_answer(0));
    let error = Provider::behind_layers(service, &config, &Metrics::default()).err().unwrap();
    assert_eq!(error.reason(), "INVALID_CONFIG");
}
