//! Step 8: one door for all, and one answer out of two services.

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use chassis::discovery::{Discovery, DiscoveryConfig};
use chassis::gateway::{Compose, Gateway, Part, Route, get_json};
use chassis::http::Client;
use chassis::{App, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    http: chassis::http::ServerConfig,
    discovery: DiscoveryConfig,
}

// ANCHOR: edge
#[derive(Clone)]
struct Edge {
    bookings: Client,
    cards: Client,
}

async fn connect(app: &App, config: &Config) -> Result<Edge> {
    let discovery = Discovery::new(&config.discovery)?;
    let client = |service| Client::builder(service, &discovery).metrics(app.metrics()).build();
    Ok(Edge { bookings: client("bookings")?, cards: client("cards")? })
}

fn router(edge: &Edge) -> Router {
    let card = Part::optional(get_json(edge.cards.clone(), "/cards/{card}"));
    Gateway::new()
        .route(
            Route::path("/api/bookings")
                .methods([Method::POST])
                .to(edge.bookings.clone())
                .strip_prefix("/api"),
        )
        .compose(
            "/api/bookings/{id}/with-card/{card}",
            Compose::new()
                .part("booking", Part::required(get_json(edge.bookings.clone(), "/bookings/{id}")))
                .part("card", card.within(Duration::from_millis(300))),
        )
        .into_router()
}

chassis::service! {
    name:   "edge",
    config: Config,
    state:  connect,
    http:   router,
}
// ANCHOR_END: edge
