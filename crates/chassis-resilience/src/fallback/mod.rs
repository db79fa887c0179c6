//! Fallback: when the callee does not answer, something less that is still worth having.
//!
//! Three things can stand in for an answer: the last good one with its age ([`LastGood`]), one
//! that is always right enough ([`Otherwise`]), and the promise to do it later ([`Later`]). They
//! are tried in the order in which they are joined by [`Substitute::or`].
//!
//! An answer that stands in says so: the layer answers with an [`Answer`], and whoever shows it
//! can show that too. A fallback that nobody can tell from an answer hides an outage from those
//! who should end it.
//!
//! It stands outside everything, because only what all the other layers could not mend is worth
//! less than an answer. A fallback should not make a call of its own to something that can fail
//! for the same reason.

mod answer;
mod future;
mod layer;
mod service;
mod sources;
mod substitute;

pub use answer::{Answer, Degraded};
pub use future::ResponseFuture;
pub use layer::{FallbackLayer, FallbackStats};
pub use service::FallbackService;
pub use sources::{LastGood, Later, Otherwise};
pub use substitute::{Or, Substitute};
