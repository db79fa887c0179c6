//! Step 5: a booking is told to others, and each letter is written once.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chassis::core::Probe;
use chassis::data::{DatabaseConfig, Db, Migrations, Tx, params};
use chassis::http::{Json, Path, Problem};
use chassis::messaging::{Broker, BrokerConfig, Consumer, Inbox, Outbox, Relay};
use chassis::{App, Error, Result};
use chassis_tutorial::SeatBooked;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    http: chassis::http::ServerConfig,
    database: DatabaseConfig,
    broker: BrokerConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: Default::default(),
            database: DatabaseConfig::url("sqlite://data/bookings.db?mode=rwc"),
            broker: BrokerConfig::at("embedded:data/broker"),
        }
    }
}

fn migrations() -> Migrations {
    Migrations::new("bookings")
        .step(1, "booking", include_str!("../../migrations/1_booking.sql"))
        .step(2, "letter", include_str!("../../migrations/2_letter.sql"))
}

// ANCHOR: connect
#[derive(Clone)]
struct Bookings {
    db: Db,
    broker: Broker,
    outbox: Outbox,
}

impl Bookings {
    async fn connect(app: &App, config: &Config) -> Result<Bookings> {
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("bookings-db", move || async move { pool.close().await });
        let broker = Broker::connect(&config.broker).await?;
        let outbox = Outbox::new(&db, "bookings");
        for tables in [outbox.migrations(), Inbox::new(&db).migrations(), migrations()] {
            db.migrate(&tables).await?;
        }
        Ok(Bookings { db, broker, outbox })
    }
    // ANCHOR_END: connect

    fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    // ANCHOR: append
    async fn book(&self, new: NewBooking) -> Result<SeatBooked> {
        let id = uuid::Uuid::now_v7().to_string();
        let booked = SeatBooked { booking_id: id, seat: new.seat, name: new.name };
        let (event, outbox) = (booked.clone(), self.outbox.clone());
        self.db
            .transaction(async move |tx| {
                let sql = "insert into booking (id, seat, name) values ($1, $2, $3)
                           on conflict (seat) do nothing";
                let row = params![&*event.booking_id, &*event.seat, &*event.name];
                if tx.execute(sql, row).await? == 0 {
                    return Err(Error::already_exists("SEAT_TAKEN", "somebody has this seat"));
                }
                outbox.append(tx, &event).await?;
                Ok(())
            })
            .await?;
        Ok(booked)
    }
    // ANCHOR_END: append

    async fn letter(&self, booking: &str) -> Result<String> {
        let sql = "select text from letter where booking_id = $1";
        let row = self.db.fetch_optional(sql, params![booking]).await?;
        let row = row.ok_or_else(|| Error::not_found("LETTER_NOT_FOUND", "no letter yet"))?;
        Ok(row.text(0)?.to_owned())
    }
}

// ANCHOR: consume
fn relay(bookings: &Bookings) -> Relay {
    bookings.outbox.relay(&bookings.broker)
}

fn mail(bookings: &Bookings) -> Consumer<Bookings> {
    Consumer::new(&bookings.broker, &bookings.db, "mail", bookings.clone())
        .on::<SeatBooked>(write_letter)
}

async fn write_letter(_: Bookings, tx: &mut Tx, event: SeatBooked) -> Result<()> {
    let text = format!("Dear {}, your seat is {}.", event.name, event.seat);
    tx.execute(
        "insert into letter (booking_id, text) values ($1, $2)",
        params![&*event.booking_id, &*text],
    )
    .await?;
    Ok(())
}
// ANCHOR_END: consume

#[derive(Deserialize)]
struct NewBooking {
    seat: String,
    name: String,
}

async fn book(
    State(bookings): State<Bookings>,
    Json(new): Json<NewBooking>,
) -> Result<(StatusCode, Json<SeatBooked>), Problem> {
    Ok((StatusCode::CREATED, Json(bookings.book(new).await?)))
}

async fn letter(
    State(bookings): State<Bookings>,
    Path(booking): Path<String>,
) -> Result<Json<String>, Problem> {
    Ok(Json(bookings.letter(&booking).await?))
}

fn router(bookings: &Bookings) -> Router {
    Router::new()
        .route("/bookings", post(book))
        .route("/letters/{booking}", get(letter))
        .with_state(bookings.clone())
}

// ANCHOR: service
chassis::service! {
    name:   "bookings",
    config: Config,
    state:  Bookings::connect,
    probes: { "bookings-db" => Bookings::db_probe },
    parts:  [relay, mail],
    http:   router,
}
// ANCHOR_END: service
