//! Cache: answer from memory, and let only one call fetch what is missing.
//!
//! A cache in front of a callee makes three kinds of trouble, and each has its answer here.
//! When a much-wanted entry expires, everybody fetches it at once: of those that want the same
//! key one fetches and the others wait for it (single flight, as in Go's `singleflight`). The
//! one that fetches makes its caller wait: for a while an old value is given at once and
//! fetched anew behind the caller's back (`stale-while-revalidate`, RFC 5861). And when the
//! callee is down, an old value is better than none (`stale-if-error`, the same).
//!
//! What is given says how old it is and why ([`Cached`]). Memory is bounded by a number of
//! entries. The cache is this process's own: nobody tells it that a value has changed elsewhere.

mod age;
mod error;
mod handle;
mod layer;
mod service;
mod table;

pub use age::{CacheSettings, Cached, Freshness};
pub use error::FetchFailed;
pub use handle::{Cache, CacheStats};
pub use layer::CacheLayer;
pub use service::CacheService;
