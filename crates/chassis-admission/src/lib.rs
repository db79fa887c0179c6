//! Which calls a server lets in, the same for HTTP and gRPC.
//!
//! A server that takes every call at three times its capacity answers each one after its caller
//! has left. A [`Door`] stands before the handlers and decides once for each call: how important
//! is it, has its caller had its share, is there room. What it refuses has cost nothing and may
//! be sent again elsewhere; what it lets in is answered in time.
//!
//! - [`AdmissionConfig`]: the settings, and why each default is what it is.
//! - [`Door`]: the decision, and what is counted of it.
//!
//! It knows no transport: a server tells it who calls and how a call ended, and turns its
//! [`Error`](chassis_core::Error) into an answer. What it does not do: it knows no caller by
//! name, only by address; that is for who authenticates.

mod config;
mod door;
mod networks;

pub use config::{AdmissionConfig, RateLimitConfig, RoutePriority, ShedConfig};
pub use door::{Door, Pass, SERVER_OVERLOADED};
