//! The contract of a broker, and the two that keep it.
//!
//! What a service relies on, whichever broker runs below it:
//!
//! - **Stored means stored.** [`Publisher::publish`] returns when the broker has
//!   the message; publishing the same id to the same topic again within the
//!   de-duplication window changes nothing, but for a message that is sent again
//!   out of the [dead letters](crate::dead_letters).
//! - **Groups.** Each (group, topic) is a durable subscription of its own: each
//!   message goes to each group, and to one subscriber within the group. A group
//!   that subscribes for the first time begins with the oldest message kept.
//! - **At least once.** A delivery is [acknowledged](Delivery::ack), given back
//!   [with a delay](Delivery::nak) or [uncounted](Delivery::release), or
//!   [given up](Delivery::term); one that is not answered within `ack_wait` comes
//!   again, until `max_deliver`.
//!   [`Delivery::in_progress`] asks for another `ack_wait`.
//! - **Order within a key.** A message whose key has an unanswered earlier message
//!   in the group waits (or comes to the same subscriber, where that one asked for
//!   several [`per_key`](Subscription::per_key)). On JetStream this holds among the deliveries of one
//!   subscription; two processes of one group may overtake each other, unless their
//!   consumer takes messages [in turn](crate::Consumer::in_turn).
//! - **Limits.** Sizes, names, messages in hand and the time that messages are
//!   kept are bounded.
//!
//! `conformance` (with the feature of that name) holds the contract as scenarios;
//! each broker passes all of them.

mod browse;
mod config;
mod delivery;
mod handle;
mod lag;
mod tail;
mod transient;

pub mod embedded;
pub mod jetstream;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::time::Duration;

use chassis_core::{BoxFuture, Result};

pub use browse::{Browse, MAX_PAGE, Page, Stored, Topics};
pub use config::{BrokerConfig, BrokerUrl, Subscription};
pub use delivery::{Acknowledge, Answer, Delivery};
pub use handle::Broker;
pub use lag::{Lag, MeasureLag};
pub use tail::{Ledger, Tail, Tails, Watch, Witness};
pub(crate) use transient::{ERROR_CODE, ERROR_MESSAGE, ERROR_REASON};
pub use transient::{Parcel, Parcels, Transient};

use crate::message::Message;

/// Something that stores messages.
pub trait Publisher: Send + Sync + 'static {
    /// Stores a message. `Ok` means that the broker has it; publishing the same
    /// id to the same topic again is harmless.
    ///
    /// Dropping the future leaves open whether the message is stored: publish it
    /// again under the same id.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for what no broker takes (see [`Message::validate`]);
    /// `RESOURCE_EXHAUSTED` where the broker is full; `UNAVAILABLE` or
    /// `DEADLINE_EXCEEDED` where it does not answer.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>>;

    /// Whether it still has what it acknowledged, where it can be asked.
    fn tails(&self) -> Option<&dyn Tails> {
        None
    }
}

/// Something that hands messages out.
pub trait Subscriber: Send + Sync + 'static {
    /// Joins a group of a topic, and makes it where it does not exist.
    ///
    /// Dropping the future leaves a group that may have been made.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a bad group or topic; `UNAVAILABLE` where the
    /// broker does not answer.
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Deliveries>>>;
}

/// The messages of one subscription. Dropping it leaves the group; what was
/// delivered and not answered comes again.
pub trait Deliveries: Send {
    /// Waits for the next message. `None` means that the broker was closed.
    ///
    /// While `max_in_flight` deliveries are unanswered it waits for an answer.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` where the broker cannot be read just now; calling again is
    /// allowed, after a pause.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>>>;

    /// Gives back, uncounted, what was fetched and not handed out, and fetches nothing
    /// until [`next`](Deliveries::next) is called again: others of the group can have it.
    ///
    /// Does nothing where nothing is fetched ahead. Dropping the future may keep some.
    fn pause(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A broker: what [`Broker`] holds, and what an own broker implements.
pub trait Driver: Publisher + Subscriber {
    /// Whether it answers right now; for a health probe.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` with the reason that it does not.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// The longest time after which it may deliver a message again: as a rule,
    /// for as long as it keeps one.
    fn redelivers_within(&self) -> Duration;

    /// Looking at stored messages, where this broker can.
    fn browse(&self) -> Option<&dyn Browse> {
        None
    }

    /// How far a group is behind, where this broker can say.
    fn lag(&self) -> Option<&dyn MeasureLag> {
        None
    }

    /// Messages that are not stored, where this broker carries some.
    fn transient(&self) -> Option<&dyn Transient> {
        None
    }

    /// Stores what is under way and stops. Deliveries end with `None`, publishing
    /// fails. Calling it again does nothing.
    fn close(&self) -> BoxFuture<'_, ()>;
}
