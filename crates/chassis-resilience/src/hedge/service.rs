//! The service that keeps a copy of what may be sent twice.
//!
//! No copy is made before the delay is known, so that a callee that is not measured yet costs
//! nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tower::Service;

use super::{Hedge, HedgePolicy, ResponseFuture};
use crate::{BoxError, retry::RetryBudget};

/// Sends a second copy of calls that are late.
#[derive(Clone, Debug)]
pub struct HedgeService<P, S> {
    pub(super) policy: P,
    pub(super) hedge: Hedge,
    pub(super) budget: RetryBudget,
    pub(super) deposits: bool,
    pub(super) inner: S,
}

impl<P, S, Req> Service<Req> for HedgeService<P, S>
where
    P: HedgePolicy<Req, S::Response, S::Error>,
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    // It has room for two calls. In a box, because where a stack hedges only if it is configured,
    // the calls of those that do not would carry that room along.
    type Future = Pin<Box<ResponseFuture<P, S, Req>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if self.deposits {
            self.budget.deposit();
        }
        let delay = self.hedge.delay();
        let copy = delay.and_then(|delay| Some((delay, self.policy.clone_request(&request)?)));
        let watch = self.hedge.watch();
        let first = self.inner.call(request);
        // Cloned after the call, so that the copy does not take the readiness with it.
        let spare = copy.map(|(delay, request)| (delay, request, self.inner.clone()));
        let (policy, budget) = (self.policy.clone(), self.budget.clone());
        Box::pin(ResponseFuture::new(first, spare, policy, budget, watch))
    }
}
