//! The way to the provider: a column of layers, each with its reason.
//!
//! The provider belongs to someone else. It is slow at times, fails at times,
//! and at times does its work but loses the answer; the [simulated
//! one](moody) does all three. Every request carries a key by which it is
//! idempotent, and on that the whole column rests: without it, no retry here
//! would be allowed.

pub mod bank;
pub mod mood;
pub mod moody;

use chassis::Result;
use chassis::core::{Context, Error, Metrics, Probe, Span, SpanKind};
use chassis::data::Db;
use chassis::resilience::breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitOpen, State};
use chassis::resilience::bulkhead::{BulkheadFull, BulkheadLayer};
use chassis::resilience::retry::{Decision, RetryLayer, RetryPolicy};
use chassis::resilience::timeout::TimeoutLayer;
use chassis::resilience::{BoxError, Classified};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::config::ProviderConfig;
use crate::domain::{Charge, Verdict};
use bank::Bank;
use mood::Moods;
use moody::MoodyProvider;

/// One request to the provider; its key makes it idempotent there.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Take money. The charge's payment id is the key.
    Charge(Charge),
    /// Give back what was taken under this key, and close it.
    GiveBack {
        /// The payment id of the charge.
        key: String,
    },
}

impl Ask {
    fn name(&self) -> &'static str {
        match self {
            Ask::Charge(_) => "provider charge",
            Ask::GiveBack { .. } => "provider give back",
        }
    }
}

/// The provider behind its layers. Clones share breaker, budget and places.
#[derive(Clone)]
pub struct Provider {
    stack: BoxCloneSyncService<Ask, Verdict, BoxError>,
    breaker: CircuitBreaker,
}

impl Provider {
    /// The simulated provider with the moods and layers of `config`, and its
    /// books in `db`.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for settings that cannot work.
    pub fn moody(config: &ProviderConfig, db: Db, metrics: &Metrics) -> Result<Provider> {
        config.validate()?;
        let moods = Moods::new(config.seed, config.fail_share, config.slow_share);
        let provider = MoodyProvider::new(Bank::new(db), moods, config.slow_for);
        Provider::behind_layers(provider, config, metrics)
    }

    /// Any provider behind the layers of `config`.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for settings that cannot work.
    pub fn behind_layers<S>(
        provider: S,
        config: &ProviderConfig,
        metrics: &Metrics,
    ) -> Result<Provider>
    where
        S: Service<Ask, Response = Verdict> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
    {
        let client = &config.client;
        client.validate("provider.client")?;
        let breaker = CircuitBreaker::new("payment-provider", client.breaker.settings());
        count_transitions(&breaker, metrics);
        let stack = ServiceBuilder::new()
            // The whole call, attempts and pauses together: outermost, because
            // our caller has its own deadline and does not care how many
            // attempts fill it.
            .layer(TimeoutLayer::new(client.timeout))
            // Outside everything that is counted for one attempt: each retry
            // takes a place, asks the breaker and has its time anew. The budget
            // keeps retries a share of the calls, so that a provider that fails
            // altogether gets a fifth more load, not three times as much.
            .layer(RetryLayer::new(RepeatByKey, client.retry_settings(), client.retry_budget()))
            // Inside the retry, so that a pause between attempts holds no
            // place; outside the breaker, because having no place is our
            // shortage and says nothing about the provider.
            .layer(BulkheadLayer::new(client.max_concurrent, client.max_wait))
            // Outside the attempt's timeout, so that a provider which hangs
            // counts as one which fails.
            .layer(CircuitBreakerLayer::new(breaker.clone(), Classified::errors()))
            // Innermost: the time of the provider alone, without our own queue.
            .layer(TimeoutLayer::new(client.attempt_timeout))
            .service(provider);
        Ok(Provider { stack: BoxCloneSyncService::new(stack), breaker })
    }

    /// Asks for the money of a charge.
    ///
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// `PROVIDER_UNAVAILABLE` where the outcome is not known: ask again.
    pub async fn charge(&self, charge: &Charge) -> Result<Verdict> {
        self.ask(Ask::Charge(charge.clone())).await
    }

    /// Asks to give back the money of a charge, or to bar it.
    ///
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// `PROVIDER_UNAVAILABLE` where the outcome is not known: ask again.
    pub async fn give_back(&self, charge: &Charge) -> Result<()> {
        self.ask(Ask::GiveBack { key: charge.payment_id.clone() }).await.map(drop)
    }

    /// Fails while the circuit is open. No request is sent: the calls that are
    /// made anyway have shown it.
    pub fn probe(&self) -> impl Probe + use<> {
        let breaker = self.breaker.clone();
        move || {
            let state = breaker.state();
            async move {
                match state {
                    State::Open | State::ForcedOpen => {
                        Err(Error::unavailable("CIRCUIT_OPEN", "the provider does not work"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Verdict> {
        // One span for the whole call: the attempts are the column's business.
        let context = Context::current().child();
        let mut span = Span::start(&context, SpanKind::Client, ask.name());
        span.set("peer.service", "payment-provider");
        let answer = context.scope(self.stack.clone().oneshot(ask)).await;
        if let Err(error) = &answer {
            span.fail(error.to_string());
        }
        answer.map_err(unavailable)
    }
}

/// Repeats what may help if repeated: every request may be, by its key.
#[derive(Clone, Copy)]
struct RepeatByKey;

impl RetryPolicy<Ask, Verdict, BoxError> for RepeatByKey {
    fn clone_request(&self, ask: &Ask) -> Option<Ask> {
        Some(ask.clone())
    }

    fn decide(&self, _attempt: u32, _ask: &Ask, result: Result<&Verdict, &BoxError>) -> Decision {
        match result {
            // A declined card is an answer.
            Ok(_) => Decision::Done,
            // Both say "less, not more".
            Err(error) if error.is::<CircuitOpen>() || error.is::<BulkheadFull>() => Decision::Done,
            Err(_) => Decision::Retry,
        }
    }
}

fn unavailable(source: BoxError) -> Error {
    let pause = source.downcast_ref::<CircuitOpen>().map(|open| open.retry_in);
    let error = Error::unavailable("PROVIDER_UNAVAILABLE", "the payment provider does not answer")
        .with_source(source);
    match pause {
        Some(pause) => error.with_retry_after(pause),
        None => error,
    }
}

fn count_transitions(breaker: &CircuitBreaker, metrics: &Metrics) {
    let opened = metrics.counter(
        "payment_provider_circuit_opened",
        "Times that the circuit to the payment provider opened",
        &[],
    );
    breaker.on_transition(move |change| {
        tracing::warn!(from = ?change.from, to = ?change.to, "the provider's circuit changed");
        if change.to == State::Open {
            opened.inc();
        }
    });
}
