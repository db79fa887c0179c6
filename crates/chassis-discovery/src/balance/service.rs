//! The balancer as a tower service.
//!
//! It is always ready: an endpoint that is not ready delays one call and not the
//! pick of the next. The future reports what became of the call, also when it is
//! dropped: a call that a timeout above has cut off is the most common sign of
//! an endpoint that hangs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chassis_core::{BoxError, BoxFuture, Metrics};
use chassis_resilience::{Class, Classify};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::affinity::Affinity;
use super::error::NoEndpoints;
use super::node::Call;
use super::pool::{Dark, Picked, Pool, Refused};
use super::settings::BalanceSettings;
use crate::sync::Mutex;
use crate::{Endpoint, Target, Updates};

/// How long a call waits for the first answer of discovery.
const FIRST_SET_WAIT: Duration = Duration::from_secs(2);

/// Sends each call to one of the endpoints of a target. Clones share the pool.
pub struct Balance<S, C, Req> {
    shared: Arc<Shared<S, Req>>,
    classify: C,
}

struct Shared<S, Req> {
    target: Target,
    pool: Mutex<Pool<S>>,
    hung_after: Duration,
    affinity: fn(&Req) -> Option<Affinity>,
}

impl<S, C: Clone, Req> Clone for Balance<S, C, Req> {
    fn clone(&self) -> Balance<S, C, Req> {
        Balance { shared: Arc::clone(&self.shared), classify: self.classify.clone() }
    }
}

impl<S: Clone, C, Req> Balance<S, C, Req> {
    /// A balancer over the endpoints of `updates`.
    ///
    /// `make` gives the service of one endpoint, once; each call goes to a clone
    /// of it. `classify` says what a failure is, for the circuit breaker of each
    /// endpoint and for its load. `affinity` reads the key of a request, if it has one.
    pub fn new(
        target: Target,
        updates: Updates,
        make: impl Fn(&Endpoint) -> S + Send + 'static,
        classify: C,
        affinity: fn(&Req) -> Option<Affinity>,
        settings: BalanceSettings,
    ) -> Balance<S, C, Req> {
        let hung_after = settings.hung_after;
        let pool = Mutex::new(Pool::new(target.clone(), updates, Box::new(make), settings));
        Balance { shared: Arc::new(Shared { target, pool, hung_after, affinity }), classify }
    }

    /// Shows in these metrics how many endpoints there are, how often none could
    /// be picked, and what the circuits do. Only the first binding counts.
    pub fn bind(&self, metrics: &Metrics) {
        self.shared.pool.lock().bind(metrics);
    }
}

impl<S, C, Req> Service<Req> for Balance<S, C, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, C, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture { state: self.begin(request, true), balance: self.clone() }
    }
}

impl<S, C, Req> Balance<S, C, Req> {
    /// Picks an endpoint and begins the call there. `may_wait`: for the first
    /// answer of discovery.
    fn begin(&self, request: Req, may_wait: bool) -> State<S, Req>
    where
        S: Service<Req> + Clone,
    {
        let affinity = (self.shared.affinity)(&request);
        let picked = self.shared.pool.lock().pick(affinity, Instant::now());
        let error = match picked {
            Ok(Picked { service, call }) => {
                return State::Calling {
                    answer: service.oneshot(request),
                    report: Report { call: Some(call), hung_after: self.shared.hung_after },
                };
            }
            Err(Refused::Unknown) if may_wait => {
                let updates = self.shared.pool.lock().updates();
                return State::Waiting {
                    known: Box::pin(first_set(updates)),
                    request: Some(request),
                };
            }
            Err(Refused::Unknown) => NoEndpoints { target: self.shared.target.clone() }.into(),
            Err(Refused::NoEndpoints(error)) => error.into(),
            Err(Refused::AllOpen(error)) => error.into(),
            Err(Refused::Unreachable(_, dark)) if dark.until > Instant::now() => {
                return State::Waiting { known: Box::pin(light(*dark)), request: Some(request) };
            }
            Err(Refused::Unreachable(error, _)) => error.into(),
        };
        State::Refused { error: Some(error) }
    }
}

/// Whether the set became known in time shows when it is used.
async fn first_set(mut updates: Updates) {
    let _ = tokio::time::timeout(FIRST_SET_WAIT, updates.known()).await;
}

/// Whether it was worth the wait shows when an endpoint is picked.
async fn light(Dark { mut returns, mut updates, until }: Dark) {
    let wait = async {
        tokio::select! {
            _ = returns.changed() => {}
            _ = updates.changed() => {}
        }
    };
    let _ = tokio::time::timeout_at(until, wait).await;
}

pin_project! {
    /// The future of [`Balance`]. Dropping it cancels the call and reports it as
    /// given up.
    pub struct ResponseFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        balance: Balance<S, C, Req>,
        #[pin]
        state: State<S, Req>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req>
    where
        S: Service<Req>,
    {
        Waiting { known: BoxFuture<'static, ()>, request: Option<Req> },
        Calling { #[pin] answer: Oneshot<S, Req>, report: Report },
        Refused { error: Option<BoxError> },
    }
}

impl<S, C, Req> Future for ResponseFuture<S, C, Req>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProjection::Waiting { known, request } => {
                    ready!(known.as_mut().poll(cx));
                    match request.take() {
                        Some(request) => this.balance.begin(request, false),
                        None => State::Refused { error: None },
                    }
                }
                StateProjection::Calling { answer, report } => {
                    let result = ready!(answer.poll(cx));
                    let classify = &this.balance.classify;
                    let class = classify.classify(result.as_ref());
                    let retry_after = match class {
                        Class::Success => None,
                        _ => classify.retry_after(result.as_ref()),
                    };
                    report.end(class, retry_after);
                    return Poll::Ready(result.map_err(Into::into));
                }
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error
                        .take()
                        .unwrap_or_else(|| "polled after completion".into())));
                }
            };
            this.state.set(next);
        }
    }
}

/// What one call has to say about its endpoint, said once.
struct Report {
    call: Option<Call>,
    hung_after: Duration,
}

impl Report {
    fn end(&mut self, class: Class, retry_after: Option<Duration>) {
        if let Some(call) = self.call.take() {
            call.end(class, retry_after, Instant::now());
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.give_up(|elapsed| elapsed >= self.hung_after, Instant::now());
        }
    }
}
