//! The layer that puts retries on a service.
//!
//! It takes the budget as a handle, because a budget belongs to a callee and is
//! often shared by several stacks.

use tower::Layer;

use super::{Retry, RetryBudget, RetrySettings};

/// Puts [`Retry`] on a service.
#[derive(Clone, Debug)]
pub struct RetryLayer<P> {
    policy: P,
    settings: RetrySettings,
    budget: RetryBudget,
}

impl<P> RetryLayer<P> {
    /// Retries as `policy` decides, within `settings` and `budget`.
    pub fn new(policy: P, settings: RetrySettings, budget: RetryBudget) -> Self {
        RetryLayer { policy, settings, budget }
    }
}

impl<P: Clone, S> Layer<S> for RetryLayer<P> {
    type Service = Retry<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry {
            policy: self.policy.clone(),
            settings: self.settings,
            budget: self.budget.clone(),
            inner,
        }
    }
}
