//! Adaptive concurrency: as many calls at a time as there is room for, measured.
//!
//! A fixed limit is wrong as soon as the callee is scaled, slowed by a neighbour or asked for
//! something else. What tells that there are too many calls is that they wait for each other:
//! the latency rises above what it is when nobody waits. The limit follows that gradient, as
//! in Netflix's concurrency-limits (`Gradient2Limit`) and Envoy's adaptive concurrency filter,
//! whose way to measure the least latency is used here: from time to time few calls are let
//! through and their median is taken.
//!
//! Nothing waits here: a call above the limit is refused at once, because a queue before a
//! measured limit would be measured with it. In front of an own server use the load
//! [shedder](crate::shed), which knows priorities.

mod error;
mod gradient;
mod handle;

pub use error::ConcurrencyLimited;
pub use gradient::AdaptiveSettings;
pub use handle::{AdaptiveLimit, AdaptiveStats, Place};

/// Puts an [`AdaptiveLimit`] on a service; the classifier tells answers from failures, whose
/// speed says nothing.
pub type AdaptiveLayer<C> = crate::GuardLayer<AdaptiveLimit, C>;
/// Makes calls only with a place of its [`AdaptiveLimit`]. Dropping a call frees its place.
pub type AdaptiveService<S, C> = crate::Guarded<S, AdaptiveLimit, C>;
