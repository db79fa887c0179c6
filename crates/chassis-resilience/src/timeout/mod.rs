//! Timeout: a bound on how long one call may take.
//!
//! Without it, a callee that neither answers nor refuses holds a task, a
//! connection and a place in every queue for ever. The timeout turns silence
//! into an error that the other layers can count.
//!
//! It bounds one call, from `call` to the answer; a streamed body that follows
//! the answer is not covered. It is not a deadline: it knows nothing of the time
//! that the caller has already spent.

mod error;
mod layer;
mod service;

pub use error::Elapsed;
pub use layer::TimeoutLayer;
pub use service::{ResponseFuture, Timeout};
