//! Who runs where, and which one to call.
//!
//! A service is called by its name. Two questions stand between the name and a
//! socket: which endpoints serve it now, and which of them gets this call. The
//! first is answered by a [`Resolver`]: written down ([`Fixed`]), in this process
//! ([`Registry`]), or in DNS ([`Dns`]). It always answers with the complete set
//! and keeps the last good one when its source is down. The second is answered by
//! [`Balance`]: two by chance, the less loaded one of them, past open circuits.
//!
//! The other direction is [`Registrar`]: a process that listens says so, last
//! after its start, and takes it back first at its end ([`Registration`]).
//!
//! What it does not do: it never decides whether a failed call is tried again.
//! That needs to know whether the call is safe to repeat, which only the
//! transport's client does. [`provably_not_sent`] is the one thing that it can
//! say for sure.

mod balance;
mod client_config;
mod config;
mod discovery;
mod dns;
mod endpoint;
mod fixed;
mod limits;
mod registrar;
mod registration;
mod registry;
mod resolver;
mod selector;
mod target;

pub use balance::{
    Affinity, AllOpen, Balance, BalanceSettings, NoEndpoints, ResponseFuture, provably_not_sent,
};
pub use client_config::{BalanceConfig, BreakerConfig, ClientConfig, HedgeConfig};
pub use config::{DiscoveryConfig, DnsConfig, Mode};
pub use discovery::Discovery;
pub use dns::Dns;
pub use endpoint::{Endpoint, MAX_LABEL_BYTES, MAX_LABELS, MAX_WEIGHT};
pub use fixed::Fixed;
pub use registrar::{Lease, Registrar};
pub use registration::Registration;
pub use registry::Registry;
pub use resolver::{Feed, MAX_ENDPOINTS, Resolver, Updates};
pub use selector::Selector;
pub use target::Target;
