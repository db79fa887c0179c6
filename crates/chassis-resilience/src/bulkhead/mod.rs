//! Bulkhead: a bound on how many calls are under way at the same time.
//!
//! A callee that answers slowly fills its callers with waiting tasks, until they
//! have no memory or connections left for those that are well. The bulkhead
//! gives each callee its own share, and a short, bounded queue in front of it:
//! a limited number of waiters, each for a limited time.
//!
//! Places are given in the order of asking, and no newcomer overtakes a waiter.
//! It bounds calls, not rate, and it does not adapt to what the callee can bear.
//! A place is held until the answer comes, not until a streamed body has ended.

mod error;
mod handle;
mod layer;
mod service;

pub use error::BulkheadFull;
pub use handle::{Bulkhead, BulkheadSettings, Slot};
pub use layer::BulkheadLayer;
pub use service::{BulkheadService, ResponseFuture};
