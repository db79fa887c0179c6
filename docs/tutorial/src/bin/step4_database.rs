//! Step 4: bookings in a database of the service's own.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chassis::core::Probe;
use chassis::data::{DatabaseConfig, Db, Migrations, params};
use chassis::http::{Json, Path, Problem};
use chassis::{App, Error, Result};
use serde::{Deserialize, Serialize};

// ANCHOR: config
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    http: chassis::http::ServerConfig,
    database: DatabaseConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: Default::default(),
            database: DatabaseConfig::url("sqlite://data/bookings.db?mode=rwc"),
        }
    }
}
// ANCHOR_END: config

// ANCHOR: connect
#[derive(Clone)]
struct Bookings {
    db: Db,
}

fn migrations() -> Migrations {
    Migrations::new("bookings").step(1, "booking", include_str!("../../migrations/1_booking.sql"))
}

impl Bookings {
    async fn connect(app: &App, config: &Config) -> Result<Bookings> {
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("bookings-db", move || async move { pool.close().await });
        db.bind_metrics(app.metrics(), "bookings");
        db.migrate(&migrations()).await?;
        Ok(Bookings { db })
    }

    fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }
    // ANCHOR_END: connect

    // ANCHOR: transaction
    async fn book(&self, new: NewBooking) -> Result<Booking> {
        let id = uuid::Uuid::now_v7().to_string();
        let booking = Booking { id, seat: new.seat, name: new.name };
        let row = booking.clone();
        self.db
            .transaction(async move |tx| {
                let inserted = tx
                    .execute(
                        "insert into booking (id, seat, name) values ($1, $2, $3)
                         on conflict (seat) do nothing",
                        params![&*row.id, &*row.seat, &*row.name],
                    )
                    .await?;
                match inserted {
                    1 => Ok(()),
                    _ => Err(Error::already_exists("SEAT_TAKEN", "somebody has this seat")),
                }
            })
            .await?;
        Ok(booking)
    }
    // ANCHOR_END: transaction

    async fn find(&self, id: &str) -> Result<Booking> {
        let sql = "select id, seat, name from booking where id = $1";
        let row = self.db.fetch_optional(sql, params![id]).await?;
        let row = row.ok_or_else(|| Error::not_found("BOOKING_NOT_FOUND", "no such booking"))?;
        Ok(Booking {
            id: row.text(0)?.to_owned(),
            seat: row.text(1)?.to_owned(),
            name: row.text(2)?.to_owned(),
        })
    }
}

#[derive(Clone, Serialize)]
struct Booking {
    id: String,
    seat: String,
    name: String,
}

#[derive(Deserialize)]
struct NewBooking {
    seat: String,
    name: String,
}

async fn book(
    State(bookings): State<Bookings>,
    Json(new): Json<NewBooking>,
) -> Result<(StatusCode, Json<Booking>), Problem> {
    Ok((StatusCode::CREATED, Json(bookings.book(new).await?)))
}

async fn show(
    State(bookings): State<Bookings>,
    Path(id): Path<String>,
) -> Result<Json<Booking>, Problem> {
    Ok(Json(bookings.find(&id).await?))
}

fn router(bookings: &Bookings) -> Router {
    Router::new()
        .route("/bookings", post(book))
        .route("/bookings/{id}", get(show))
        .with_state(bookings.clone())
}

// ANCHOR: service
chassis::service! {
    name:   "bookings",
    config: Config,
    state:  Bookings::connect,
    probes: { "bookings-db" => Bookings::db_probe },
    http:   router,
}
// ANCHOR_END: service
