//! Requests and replies over the broker, for callers that have no other way.
//!
//! A [`Requester`] sends a request to whoever answers its topic and waits for the typed
//! reply; a [`Responder`] is the component that answers. Nothing of it is stored (see
//! [`Transient`](crate::broker::Transient)): on NATS they are core messages beside the
//! streams, in the embedded broker they pass through memory.
//!
//! **Prefer HTTP or gRPC** where the callee has an address. Their clients retry within a
//! budget, break circuits and choose the fastest endpoint, they stream, and proxies and
//! tools understand them. This here is for a callee that can be reached through the
//! broker alone (behind a firewall, without discovery, written in another language with
//! a NATS client), for short questions with short answers. For work that must happen, use
//! the [outbox](crate::outbox): a request that nobody hears is gone.
//!
//! What holds:
//!
//! - Each request goes to one responder of each group, at most once. The first reply
//!   counts. A caller that gets none does not know whether it was handled.
//! - **Deadlines travel**: a request carries the time that its caller has left, and a
//!   responder does not begin what nobody waits for any more.
//! - **Errors travel** as code, reason and public message; the source stays here.
//! - **Nothing is unbounded**: a requester has so many requests open and refuses more, a
//!   responder has so many hands and a short queue and says `RESPONDER_BUSY` beyond it.
//! - A reply that comes too late finds nobody; it is dropped and counted.
//! - Where nobody answers the topic, the request fails at once with `NO_RESPONDER`.
//!
//! Other clients can take part: a request is a NATS message to `$CHASSIS.<topic>` with
//! the CloudEvents headers of any [message](crate::message), the remaining time in
//! `x-request-timeout-ms` and a reply subject; a reply that failed has `error-code`,
//! `error-reason` and `error-message`. Both sides need permission for `$CHASSIS.>`.
//!
//! | metric | what it says |
//! |---|---|
//! | `requests_open` | requests that wait for a reply |
//! | `requests_refused` | requests that found too many open |
//! | `requests_late_replies` | replies that came when nobody waited any more |
//! | `request_seconds{topic}` | from the request to its reply or failure |
//! | `responses{topic,result}` | requests `answered`, `failed`, `busy`, `expired` |
//! | `response_seconds{topic}` | how long answering took |

mod requester;
mod responder;
mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use requester::{Requester, RequesterConfig};
pub use responder::{Answer, Responder, ResponderConfig};

use crate::event::Event;

/// An event that asks for something.
pub trait Request: Event {
    /// What the answer is.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}
