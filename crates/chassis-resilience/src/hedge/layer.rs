//! The layer that puts hedging on a service.
//!
//! It takes the budget of the retries: both are load that nobody asked for.

use tower::Layer;

use super::{Hedge, HedgeService};
use crate::retry::RetryBudget;

/// Puts [`HedgeService`] on a service.
#[derive(Clone, Debug)]
pub struct HedgeLayer<P> {
    policy: P,
    hedge: Hedge,
    budget: RetryBudget,
    deposits: bool,
}

impl<P> HedgeLayer<P> {
    /// Hedges what `policy` allows, paid out of `budget`: the one of the retry layer that
    /// stands outside, which also fills it.
    pub fn new(policy: P, hedge: Hedge, budget: RetryBudget) -> Self {
        HedgeLayer { policy, hedge, budget, deposits: false }
    }

    /// Fills the budget too, for a stack without a retry layer.
    pub fn without_retry(mut self) -> Self {
        self.deposits = true;
        self
    }
}

impl<P: Clone, S> Layer<S> for HedgeLayer<P> {
    type Service = HedgeService<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        HedgeService {
            policy: self.policy.clone(),
            hedge: self.hedge.clone(),
            budget: self.budget.clone(),
            deposits: self.deposits,
            inner,
        }
    }
}
