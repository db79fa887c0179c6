//! The service whose calls go wrong on purpose.
//!
//! A call that nothing happens to goes through unboxed; only one that is hit allocates.

use std::task::{Context, Poll};

use tower::{Service, ServiceExt};

use super::{
    Chaos, Injected,
    rules::{Blow, LONGEST_DELAY, Strike},
};
use crate::{BoxError, Detour};

/// Does to calls what [`Chaos`] says.
#[derive(Clone, Debug)]
pub struct ChaosService<S, T, D> {
    pub(super) inner: S,
    pub(super) chaos: Chaos,
    pub(super) target: T,
    pub(super) copy: D,
}

impl<S, T, D, Req> Service<Req> for ChaosService<S, T, D>
where
    S: Service<Req, Future: Send> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send,
    T: Fn(&Req) -> String,
    D: Fn(&Req) -> Option<Req>,
    Req: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if !self.chaos.is_active() {
            return Detour::direct(self.inner.call(request));
        }
        let target = (self.target)(&request);
        let strike = self.chaos.strike(&target);
        if strike == Strike::default() {
            return Detour::direct(self.inner.call(request));
        }
        let duplicate =
            if strike.fault == Some(Blow::Duplicate) { (self.copy)(&request) } else { None };
        // The one that is ready goes with the call, the copy stays.
        let copy = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, copy);
        Detour::round(hit(service, request, duplicate, target, strike))
    }
}

async fn hit<S, Req>(
    mut service: S,
    request: Req,
    duplicate: Option<Req>,
    target: String,
    strike: Strike,
) -> Result<S::Response, BoxError>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    tokio::time::sleep(strike.delay).await;
    match strike.fault {
        Some(Blow::Error) => return Err(Injected { target }.into()),
        Some(Blow::Drop) => {
            tokio::time::sleep(LONGEST_DELAY).await;
            return Err(Injected { target }.into());
        }
        Some(Blow::Duplicate) | None => {}
    }
    let second = service.clone();
    let first = service.call(request);
    let result = match duplicate {
        None => first.await,
        Some(duplicate) => tokio::join!(first, second.oneshot(duplicate)).0,
    };
    result.map_err(Into::into)
}

/// The answer, or what chaos made of it. Dropping it drops the call and its duplicate.
pub type ResponseFuture<F, R> = Detour<F, R>;
