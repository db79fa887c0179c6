//! Sockets that a server listens on, and the life of their connections.
//!
//! The servers of `chassis-http` and `chassis-grpc` stand on it; a service sees its settings
//! only. What is not about HTTP requests is here, once: who is let in, how long it may be
//! silent, how old it may get, TLS, and the drain at the end.
//!
//! Not `axum::serve` or tonic's server: those set no time-out for the first bytes, so that a
//! few slow clients hold every connection, and their drain waits without end.
//!
//! Read in this order: `listener` (with `unix`, `systemd` and `bind`), [`Limits`], [`Http`],
//! [`Listening`] (the loop and the drain), `connection` (the life of one), `first_bytes`, `stall`,
//! `upgraded`, [`tls`], [`guest`] (a second protocol on the socket). For the clients there is
//! [`propagate`].

mod accept;
mod address_text;
mod addresses;
mod bind;
mod call_headers;
mod connection;
mod context;
mod first_bytes;
pub mod guest;
mod heads;
mod http;
mod limits;
mod listener;
mod meters;
mod stall;
mod stream;
mod systemd;
pub mod tls;
mod unix;
mod upgraded;

pub use accept::Listening;
pub use address_text::AddressText;
pub use call_headers::CallHeaders;
pub use connection::{Leaving, Peer};
pub use context::{once, propagate};
pub use guest::Guest;
pub use http::{Http, KeepAlive};
pub use limits::Limits;
