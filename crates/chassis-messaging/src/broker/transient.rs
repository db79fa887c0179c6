//! Messages that are not stored: an extra power of a broker, below
//! [requests and replies](crate::request).
//!
//! A reply is for one caller who waits now. Storing it would cost a sync of the disk
//! and leave it behind when the caller is gone. So it travels beside the streams: on
//! NATS as core messages under subjects of their own, in the embedded broker through
//! memory. Who does not listen does not get it, and nothing comes twice.
//!
//! Not each broker can do that, so it is a second trait, which a driver may offer by
//! [`Driver::transient`](super::Driver::transient).

use chassis_core::{BoxFuture, Code, Result};

use super::Topics;
use crate::message::Message;

/// Headers of a reply that says what went wrong.
pub(crate) const ERROR_CODE: &str = "error-code";
pub(crate) const ERROR_REASON: &str = "error-reason";
pub(crate) const ERROR_MESSAGE: &str = "error-message";

/// A message on its way to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Where it goes, spelled like a topic. Streams with topics of the same name get
    /// none of it.
    pub to: String,
    /// Where a reply goes.
    pub reply_to: Option<String>,
    /// The message.
    pub message: Message,
}

/// A broker that carries messages without storing them.
pub trait Transient: Send + Sync + 'static {
    /// Sends a message to whoever listens now. `Ok` means that it is on its way, not
    /// that it arrives.
    ///
    /// Dropping the future leaves open whether it was sent.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for what no broker takes; `UNAVAILABLE` where the broker does
    /// not answer, with the reason `NO_RESPONDER` where nobody listens. A broker that
    /// learns of that later sends a reply with this code and reason instead.
    fn send(&self, parcel: Parcel) -> BoxFuture<'_, Result<()>>;

    /// Listens. Of all that listen with the same group one gets each message; without a
    /// group each gets it. What was sent before is not heard.
    ///
    /// Dropping the future listens to nothing.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a bad address or group; `UNAVAILABLE` where the broker does
    /// not answer.
    fn listen(
        &self,
        addresses: Topics,
        group: Option<String>,
    ) -> BoxFuture<'_, Result<Box<dyn Parcels>>>;
}

/// The messages that one listener hears; dropping it ends the listening.
pub trait Parcels: Send {
    /// Waits for the next one; `None` means that the broker was closed. A listener that
    /// is much slower than its senders loses messages.
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<Parcel>>;
}

pub(super) const NO_RESPONDER: (Code, &str, &str) =
    (Code::Unavailable, "NO_RESPONDER", "nobody answers these requests right now");
