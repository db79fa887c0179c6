//! Rate limit: a bound on how many calls start in a time.
//!
//! It protects a callee from its callers' enthusiasm, and one caller from
//! another: [`KeyedRateLimit`] counts each key (a tenant, an address) apart.
//!
//! A call above the limit is refused at once with the time until the next one
//! would pass; nothing queues here. These limits hold for this process: with `n`
//! instances, the fleet lets through `n` times as much. [`shared`] holds for all
//! instances together.

mod error;
mod gcra;
mod handle;
mod keyed;
mod layer;
mod service;
pub mod shared;

pub use error::RateLimited;
pub use gcra::{Gcra, RateLimit};
pub use handle::RateLimiter;
pub use keyed::KeyedRateLimit;
pub use layer::{KeyedRateLimitLayer, RateLimitLayer};
pub use service::{KeyedRateLimitService, RateLimitService, ResponseFuture};
