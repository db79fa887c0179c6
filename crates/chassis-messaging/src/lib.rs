//! Messages between services that neither get lost nor take effect twice.
//!
//! A broker alone cannot promise that. It delivers *at least once*: a process
//! that dies between its commit and its acknowledgement gets the message again.
//! And a service that commits to its database and then publishes may die in
//! between. So this crate puts the database on both ends:
//!
//! - the **outbox**: a transaction writes its events beside its data, and a
//!   relay publishes them afterwards, again and again until the broker has them;
//! - the **inbox**: a handler notes the message id in the transaction that does
//!   its work, so that a second delivery finds the note and does nothing.
//!
//! What comes of it: delivery at least once, *effect* exactly once, order within
//! a key. What is not promised: exactly-once delivery (a handler that calls
//! somebody outside its transaction may do so twice), order between keys, and
//! on JetStream order within a key across several processes of one group, unless
//! [the event](Event::IN_TURN) and [the consumer](Consumer::in_turn) ask for it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`message`] | what travels: a payload with CloudEvents attributes |
//! | [`event`] | a typed payload with its topic and its versioned type |
//! | [`topic`] | which names a topic and a group may have |
//! | [`broker`] | the contract of a broker, and two that keep it |
//! | [`consumer`] | typed handlers with retries and dead letters |
//! | [`dead_letters`] | what to do about messages that nobody could handle |
//! | [`outbox`] | events in the transaction, and their relay |
//! | [`inbox`] | each message takes effect once |
//! | [`request`] | requests with replies, for those who can reach each other no other way |
//! | [`saga`] | work over several services that is finished or undone |
//! | [`tokens`] | a rate limit that instances share, in a NATS bucket |

pub mod message;

pub mod event;

mod upcast;

pub mod topic;

pub mod broker;

pub mod consumer;

pub mod dead_letters;

pub mod outbox;

pub mod inbox;

pub mod request;

pub mod saga;

pub mod tokens;

#[cfg(feature = "fail-points")]
pub mod failpoint;
#[cfg(not(feature = "fail-points"))]
#[path = "failpoint_off.rs"]
pub(crate) mod failpoint;

pub use broker::{Broker, BrokerConfig, Deliveries, Delivery, Publisher, Subscriber, Subscription};
pub use consumer::{Consumer, ConsumerConfig};
pub use dead_letters::DeadLetters;
pub use event::Event;
pub use inbox::Inbox;
pub use message::Message;
pub use outbox::{Outbox, Relay};
pub use request::{Request, Requester, Responder};
