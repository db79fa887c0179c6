//! Which endpoint gets the next call.
//!
//! Two endpoints are drawn by chance and the less loaded one is taken: "power of
//! two choices", which keeps the longest queue almost as short as asking all of
//! them would, without the herd that runs to the one best endpoint (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", 2001). Load is the
//! calls under way times an average of the latency that remembers peaks
//! (Finagle's peak EWMA). A failed call counts as a slow one: an endpoint that
//! fails fast looks idle, and without the penalty it would attract all traffic.
//!
//! Each endpoint has its own circuit breaker. An open one is not a failed call
//! but a reason to draw again; only when every circuit is open the call fails,
//! at once, and says when to come back.
//!
//! There is no background task: the newest set of endpoints is looked at with
//! each call. An endpoint that leaves the set gets no new calls; those that are
//! under way keep their clone of the service and end in their own time.

mod error;
mod load;
mod metrics;
mod pick;
mod pool;
mod service;

pub use error::{AllOpen, NoEndpoints, provably_not_sent};
pub use service::{Balance, ResponseFuture};
