//! What the tutorial's services say to each other: one proto and one event.
//!
//! Services share their contracts and nothing else. The programs of the tutorial stand in
//! `src/bin`, one file a step; the book includes them, and `tests` runs each.

use chassis::messaging::Event;
use serde::{Deserialize, Serialize};

/// The gRPC contract of the seats service.
#[allow(missing_docs)]
pub mod seats {
    tonic::include_proto!("tutorial.seats.v1");
}

// ANCHOR: event
/// A seat is booked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeatBooked {
    /// The booking's id.
    pub booking_id: String,
    /// The seat, such as `A1`.
    pub seat: String,
    /// Who sits there.
    pub name: String,
}

impl Event for SeatBooked {
    const TOPIC: &'static str = "bookings.seat-booked";
    const TYPE: &'static str = "seat-booked.v1";

    fn key(&self) -> Option<String> {
        Some(self.booking_id.clone())
    }
}
// ANCHOR_END: event
