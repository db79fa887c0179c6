//! Step 2: a JSON API with errors that a program can read. Bookings are kept in memory.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chassis::http::{Json, Path, Problem};
use chassis::{App, DefaultConfig, Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

// ANCHOR: state
/// The house has this many seats.
const SEATS: usize = 96;

#[derive(Clone, Default)]
struct Bookings(Arc<Mutex<Vec<Booking>>>);

impl Bookings {
    async fn open(_: &App, _: &DefaultConfig) -> Result<Bookings> {
        Ok(Bookings::default())
    }
}

#[derive(Clone, Serialize)]
struct Booking {
    id: usize,
    seat: String,
    name: String,
}

#[derive(Deserialize)]
struct NewBooking {
    seat: String,
    name: String,
}
// ANCHOR_END: state

// ANCHOR: handlers
async fn book(
    State(bookings): State<Bookings>,
    Json(new): Json<NewBooking>,
) -> Result<(StatusCode, Json<Booking>), Problem> {
    if new.seat.is_empty() {
        return Err(Error::invalid_argument("INVALID_BOOKING", "the booking is not valid")
            .with_field("seat", "must not be empty")
            .into());
    }
    let mut all = bookings.0.lock();
    if all.iter().any(|booking| booking.seat == new.seat) {
        return Err(Error::already_exists("SEAT_TAKEN", "somebody has this seat").into());
    }
    if all.len() == SEATS {
        return Err(Error::resource_exhausted("SOLD_OUT", "the house is full").into());
    }
    let booking = Booking { id: all.len(), seat: new.seat, name: new.name };
    all.push(booking.clone());
    Ok((StatusCode::CREATED, Json(booking)))
}

async fn show(
    State(bookings): State<Bookings>,
    Path(id): Path<usize>,
) -> Result<Json<Booking>, Problem> {
    let booking = bookings.0.lock().get(id).cloned();
    let booking = booking.ok_or_else(|| Error::not_found("BOOKING_NOT_FOUND", "no such booking"));
    Ok(Json(booking?))
}
// ANCHOR_END: handlers

// ANCHOR: service
fn router(bookings: &Bookings) -> Router {
    Router::new()
        .route("/bookings", post(book))
        .route("/bookings/{id}", get(show))
        .with_state(bookings.clone())
}

chassis::service! {
    name:  "bookings",
    state: Bookings::open,
    http:  router,
}
// ANCHOR_END: service
