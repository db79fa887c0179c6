//! Retry: try again, but never so often that trying is the outage.
//!
//! Most failures of a network call are short: a restarted process, a dropped
//! connection. A second attempt hides them. But retries multiply load exactly
//! when the callee has least to spare, so three things bound them: a number of
//! attempts, a [`Backoff`] with jitter that spreads them, and a [`RetryBudget`]
//! that caps them as a share of all requests. Under total failure the budget is
//! what counts: load grows by its ratio, not by the number of attempts.
//!
//! Whether a request may be sent twice is for a [`RetryPolicy`] to say, because
//! only it knows the protocol. This layer does not make anything idempotent.

mod backoff;
mod budget;
mod future;
mod layer;
mod policy;
mod service;
mod tokens;

pub use backoff::Backoff;
pub use budget::{BudgetStats, RetryBudget};
pub use future::ResponseFuture;
pub use layer::RetryLayer;
pub use policy::{Decision, RetryPolicy, RetrySettings};
pub use service::Retry;
pub use tokens::BudgetSettings;
