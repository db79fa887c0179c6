//! Step 7: a bank that fails, and a service in front of it that does not hang.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use chassis::discovery::{BreakerConfig, ClientConfig, Discovery, DiscoveryConfig};
use chassis::http::{Client, Json, Path, Problem};
use chassis::{App, Result};
use serde::{Deserialize, Serialize};

// ANCHOR: config
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    http: chassis::http::ServerConfig,
    discovery: DiscoveryConfig,
    /// How the bank is called.
    bank: ClientConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: Default::default(),
            discovery: DiscoveryConfig::default(),
            bank: ClientConfig {
                timeout: Duration::from_secs(2),
                attempt_timeout: Duration::from_millis(500),
                max_attempts: 3,
                max_concurrent: 32,
                breaker: BreakerConfig { consecutive_failures: 5, ..Default::default() },
                ..Default::default()
            },
        }
    }
}
// ANCHOR_END: config

// ANCHOR: call
#[derive(Clone)]
struct Cards {
    bank: Client,
}

impl Cards {
    async fn connect(app: &App, config: &Config) -> Result<Cards> {
        let discovery = Discovery::new(&config.discovery)?;
        let bank = Client::builder("bank", &discovery)
            .config(&config.bank)
            .metrics(app.metrics())
            .build()?;
        Ok(Cards { bank })
    }

    async fn ask_bank(&self, card: &str) -> Result<Answer> {
        let answer = self.bank.get(format!("/cards/{card}")).send().await?;
        answer.error_for_status().await?.json().await
    }
}

/// What the bank says.
#[derive(Deserialize)]
struct Answer {
    good: bool,
}

/// What we say.
#[derive(Serialize)]
struct Card {
    /// Not known while the bank does not answer.
    good: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn check(
    State(cards): State<Cards>,
    Path(card): Path<String>,
) -> Result<Json<Card>, Problem> {
    match cards.ask_bank(&card).await {
        Ok(answer) => Ok(Json(Card { good: Some(answer.good), reason: None })),
        // It may work later: say what is known now.
        Err(error) if error.code().is_retryable() => {
            Ok(Json(Card { good: None, reason: Some(error.reason().to_owned()) }))
        }
        Err(error) => Err(error.into()),
    }
}
// ANCHOR_END: call

fn router(cards: &Cards) -> Router {
    Router::new().route("/cards/{card}", get(check)).with_state(cards.clone())
}

chassis::service! {
    name:   "cards",
    config: Config,
    state:  Cards::connect,
    http:   router,
}
