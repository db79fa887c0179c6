//! Hedge: when an answer is late, ask a second time and take whichever comes first.
//!
//! Most slow calls are slow by accident: a pause of a collector, a lost packet, one overloaded
//! endpoint of ten. A second copy that is sent when a call takes longer than 95 % of calls do
//! costs at most a twentieth more load and removes most of the tail (Jeffrey Dean and Luiz
//! André Barroso, "The Tail at Scale", 2013: "hedged requests").
//!
//! The delay is measured, not set: a fixed one is too long for most callees and a flood for a
//! callee that became slow. When the whole callee slows down, the measured delay grows with
//! it, and until it has, the [`RetryBudget`](crate::retry::RetryBudget) bounds the copies: they
//! are paid out of the same budget as retries, because both are load that nobody asked for.
//!
//! A copy is sent only of requests that [`HedgePolicy::clone_request`] gives a copy of, so only
//! of those that are safe to do twice. The loser is dropped. Here stands nothing that retries:
//! if the first attempt fails before the delay, its failure is the answer.
//!
//! It stands inside retry, whose budget and attempts it shares, and outside the bulkhead, the
//! balancer and the attempt timeout, so that the copy can go elsewhere.

mod delay;
mod future;
mod handle;
mod layer;
mod policy;
mod service;

pub use delay::HedgeSettings;
pub use future::ResponseFuture;
pub use handle::{Hedge, HedgeStats};
pub use layer::HedgeLayer;
pub use policy::HedgePolicy;
pub use service::HedgeService;
