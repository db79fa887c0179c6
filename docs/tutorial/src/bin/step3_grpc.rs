//! Step 3: a gRPC service that holds seats for bookings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chassis::grpc::IntoStatus;
use chassis::{App, DefaultConfig, Error, Result};
use chassis_tutorial::seats::seats_server::{self, SeatsServer};
use chassis_tutorial::seats::{HoldRequest, HoldResponse, ReleaseRequest, ReleaseResponse};
use parking_lot::Mutex;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

// ANCHOR: domain
/// How many released bookings are remembered.
const REMEMBERED: usize = 1_000;

#[derive(Clone, Default)]
struct Seats(Arc<Mutex<House>>);

#[derive(Default)]
struct House {
    /// Booking by seat.
    held: BTreeMap<String, String>,
    released: VecDeque<String>,
}

impl House {
    fn hold(&mut self, booking: String, seat: String) -> Result<()> {
        if self.released.contains(&booking) {
            let message = "the booking was released before";
            return Err(Error::failed_precondition("BOOKING_RELEASED", message));
        }
        match self.held.get(&seat) {
            Some(holder) if *holder == booking => Ok(()), // the same call again
            Some(_) => Err(Error::already_exists("SEAT_TAKEN", "somebody has this seat")),
            None => {
                self.held.insert(seat, booking);
                Ok(())
            }
        }
    }

    fn release(&mut self, booking: String) {
        self.held.retain(|_, holder| *holder != booking);
        self.released.truncate(REMEMBERED - 1);
        self.released.push_front(booking);
    }
}
// ANCHOR_END: domain

// ANCHOR: api
#[tonic::async_trait]
impl seats_server::Seats for Seats {
    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let HoldRequest { booking_id, seat } = request.into_inner();
        self.0.lock().hold(booking_id, seat).map_err(IntoStatus::into_status)?;
        Ok(Response::new(HoldResponse {}))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        self.0.lock().release(request.into_inner().booking_id);
        Ok(Response::new(ReleaseResponse {}))
    }
}
// ANCHOR_END: api

// ANCHOR: service
async fn open(_: &App, _: &DefaultConfig) -> Result<Seats> {
    Ok(Seats::default())
}

fn routes(seats: &Seats) -> Routes {
    Routes::new(SeatsServer::new(seats.clone()))
}

chassis::service! {
    name:  "seats",
    state: open,
    grpc:  routes,
}
// ANCHOR_END: service
