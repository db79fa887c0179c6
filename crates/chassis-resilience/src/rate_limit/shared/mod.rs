//! One limit for all instances of a service.
//!
//! To ask a store for every call would cost a round trip each, and the store would see the
//! whole load. So an instance takes some tokens at a time and spends them from memory: a lease.
//! A lease ends after a short time, whether it is spent or not, so that an instance that went
//! quiet or died holds nothing back for long. All instances together keep the limit in any
//! period, but for what was taken before it began: at most
//! `burst + (period + lease_for) / interval` calls pass.
//!
//! When the store is down, [`OnStoreDown`] says what holds: each instance keeps its share by
//! itself, or everything is refused. It is asked again after a pause, by one call.
//!
//! [`TokenStore`] is the store; [`MemoryTokenStore`] is for one process and for tests, and
//! [`conformance`] is what every other one has to pass.

pub mod conformance;
mod handle;
mod layer;
mod lease;
mod memory;
mod service;
mod store;

pub use handle::{OnStoreDown, SharedRateLimit, SharedSettings, SharedStats};
pub use layer::SharedRateLimitLayer;
pub use memory::MemoryTokenStore;
pub use service::{ResponseFuture, SharedRateLimitService};
pub use store::{BoxFuture, Grant, TokenStore};
