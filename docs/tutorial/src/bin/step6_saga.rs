//! Step 6: a ticket needs a seat and a good card; what was done is undone where one is missing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chassis::data::{DatabaseConfig, Db, Migrations, Tx, params};
use chassis::discovery::{ClientConfig, Discovery, DiscoveryConfig};
use chassis::grpc::{Channel, from_status};
use chassis::http::{Json, Path, Problem};
use chassis::messaging::saga::{Failure, SagaConfig, SagaDefinition, SagaRunner, Sagas, StepInfo};
use chassis::{App, Error, Result};
use chassis_tutorial::seats::seats_client::SeatsClient;
use chassis_tutorial::seats::{HoldRequest, ReleaseRequest};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    http: chassis::http::ServerConfig,
    database: DatabaseConfig,
    discovery: DiscoveryConfig,
    /// How the seats service is called.
    seats: ClientConfig,
    saga: SagaConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: Default::default(),
            database: DatabaseConfig::url("sqlite://data/tickets.db?mode=rwc"),
            discovery: DiscoveryConfig::default(),
            seats: ClientConfig::default(),
            saga: SagaConfig::default(),
        }
    }
}

// ANCHOR: definition
/// What a purchase knows. It is kept as JSON in the database.
#[derive(Clone, Serialize, Deserialize)]
struct Purchase {
    ticket: String,
    seat: String,
    card: String,
}

/// What its steps need.
#[derive(Clone)]
struct Steps {
    seats: SeatsClient<Channel>,
}

fn definition() -> SagaDefinition<Purchase, Steps> {
    SagaDefinition::new("purchase", 1)
        .private(&["card"])
        .step("hold-seat", hold, release)
        .action("check-card", check_card)
        .pivot("confirm", confirm)
        .on_cancelled(cancel)
}
// ANCHOR_END: definition

// ANCHOR: steps
async fn hold(mut steps: Steps, purchase: Purchase, _: StepInfo) -> Result<Purchase> {
    let request = HoldRequest { booking_id: purchase.ticket.clone(), seat: purchase.seat.clone() };
    steps.seats.hold(request).await.map_err(from_status)?;
    Ok(purchase)
}

async fn release(mut steps: Steps, purchase: Purchase, _: StepInfo) -> Result<Purchase> {
    let request = ReleaseRequest { booking_id: purchase.ticket.clone() };
    steps.seats.release(request).await.map_err(from_status)?;
    Ok(purchase)
}

async fn check_card(_: Steps, purchase: Purchase, _: StepInfo) -> Result<Purchase> {
    if purchase.card == "stolen" {
        return Err(Error::failed_precondition("CARD_REFUSED", "the card is not taken"));
    }
    Ok(purchase)
}

async fn confirm(_: Steps, tx: &mut Tx, purchase: Purchase) -> Result<Purchase> {
    settle(tx, &purchase.ticket, "confirmed", None).await?;
    Ok(purchase)
}

async fn cancel(_: Steps, tx: &mut Tx, purchase: Purchase, why: Failure) -> Result<()> {
    settle(tx, &purchase.ticket, "cancelled", Some(why.reason)).await
}
// ANCHOR_END: steps

async fn settle(tx: &mut Tx, ticket: &str, status: &str, reason: Option<String>) -> Result<()> {
    let sql = "update ticket set status = $2, reason = $3 where id = $1";
    tx.execute(sql, params![ticket, status, reason]).await?;
    Ok(())
}

fn migrations() -> Migrations {
    Migrations::new("tickets").step(1, "ticket", include_str!("../../migrations/3_ticket.sql"))
}

#[derive(Clone)]
struct Tickets {
    db: Db,
    sagas: Arc<Sagas<Purchase, Steps>>,
}

impl Tickets {
    // ANCHOR: connect
    async fn connect(app: &App, config: &Config) -> Result<Tickets> {
        let discovery = Discovery::new(&config.discovery)?;
        let channel = Channel::builder("seats", &discovery)
            .config(&config.seats)
            .idempotent(true) // the contract says that both calls may be repeated
            .metrics(app.metrics())
            .build()?;
        let steps = Steps { seats: SeatsClient::new(channel) };
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("tickets-db", move || async move { pool.close().await });
        let sagas = Sagas::new(&db, definition(), steps).with_config(config.saga.clone());
        for tables in [sagas.migrations(), migrations()] {
            db.migrate(&tables).await?;
        }
        Ok(Tickets { db, sagas: Arc::new(sagas) })
    }
    // ANCHOR_END: connect

    fn runner(&self) -> SagaRunner<Purchase, Steps> {
        self.sagas.runner()
    }

    // ANCHOR: start
    async fn buy(&self, new: NewTicket) -> Result<Ticket> {
        let id = uuid::Uuid::now_v7().to_string();
        let purchase = Purchase { ticket: id.clone(), seat: new.seat, card: new.card };
        let sagas = self.sagas.clone();
        self.db
            .transaction(async move |tx| {
                let sql = "insert into ticket (id, seat, status) values ($1, $2, 'pending')";
                tx.execute(sql, params![&*purchase.ticket, &*purchase.seat]).await?;
                sagas.start(tx, &purchase.ticket, purchase.clone()).await?;
                Ok(())
            })
            .await?;
        self.find(&id).await
    }
    // ANCHOR_END: start

    async fn find(&self, id: &str) -> Result<Ticket> {
        let sql = "select id, seat, status, reason from ticket where id = $1";
        let row = self.db.fetch_optional(sql, params![id]).await?;
        let row = row.ok_or_else(|| Error::not_found("TICKET_NOT_FOUND", "no such ticket"))?;
        Ok(Ticket {
            id: row.text(0)?.to_owned(),
            seat: row.text(1)?.to_owned(),
            status: row.text(2)?.to_owned(),
            reason: row.opt_text(3)?.map(str::to_owned),
        })
    }
}

#[derive(Deserialize)]
struct NewTicket {
    seat: String,
    card: String,
}

#[derive(Serialize)]
struct Ticket {
    id: String,
    seat: String,
    status: String,
    reason: Option<String>,
}

async fn buy(
    State(tickets): State<Tickets>,
    Json(new): Json<NewTicket>,
) -> Result<(StatusCode, Json<Ticket>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(tickets.buy(new).await?)))
}

async fn show(
    State(tickets): State<Tickets>,
    Path(id): Path<String>,
) -> Result<Json<Ticket>, Problem> {
    Ok(Json(tickets.find(&id).await?))
}

fn router(tickets: &Tickets) -> Router {
    Router::new()
        .route("/tickets", post(buy))
        .route("/tickets/{id}", get(show))
        .with_state(tickets.clone())
}

chassis::service! {
    name:   "tickets",
    config: Config,
    state:  Tickets::connect,
    parts:  [Tickets::runner],
    http:   router,
}
