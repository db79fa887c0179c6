//! The balancer as a tower service.
//!
//! It is always ready: an endpoint that is not ready delays one call and not the
//! pick of the next. The future reports what became of the call, also when it is
//! dropped: a call that a timeout above has cut off is the most common sign of
//! an endpoint that hangs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chassis_core::{BoxError, BoxFuture, Metrics};
use chassis_resilience::breaker::{BreakerSettings, Permit};
use chassis_resilience::{Class, Classify, Settle, Verdict};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use super::error::NoEndpoints;
use super::pool::{Node, Picked, Pool, Refused};
use crate::{Endpoint, Target, Updates};

/// How long a call waits for the first answer of discovery.
const FIRST_SET_WAIT: Duration = Duration::from_secs(2);

/// Sends each call to one of the endpoints of a target. Clones share the pool.
pub struct Balance<S, C> {
    shared: Arc<Shared<S>>,
    classify: C,
}

struct Shared<S> {
    target: Target,
    pool: Mutex<Pool<S>>,
    given_up_after: Duration,
}

impl<S, C: Clone> Clone for Balance<S, C> {
    fn clone(&self) -> Balance<S, C> {
        Balance { shared: Arc::clone(&self.shared), classify: self.classify.clone() }
    }
}

impl<S: Clone, C> Balance<S, C> {
    /// A balancer over the endpoints of `updates`.
    ///
    /// `make` gives the service of one endpoint, once; each call goes to a clone
    /// of it. `classify` says what a failure is, for the circuit breaker of each
    /// endpoint and for its load. A call that is dropped after `given_up_after`
    /// counts as a failure, one dropped earlier only says that it would have
    /// taken longer: pass something shorter than the timeout above.
    pub fn new(
        target: Target,
        updates: Updates,
        make: impl Fn(&Endpoint) -> S + Send + 'static,
        classify: C,
        breaker: BreakerSettings,
        given_up_after: Duration,
    ) -> Balance<S, C> {
        let pool = Pool::new(target.clone(), updates, Box::new(make), breaker);
        Balance {
            shared: Arc::new(Shared { target, pool: Mutex::new(pool), given_up_after }),
            classify,
        }
    }

    /// Shows in these metrics how many endpoints there are, how often none could
    /// be picked, and what the circuits do. Only the first binding counts.
    pub fn bind(&self, metrics: &Metrics) {
        self.shared.pool.lock().bind(metrics);
    }
}

impl<S, C, Req> Service<Req> for Balance<S, C>
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

impl<S, C> Balance<S, C> {
    /// Picks an endpoint and begins the call there. `may_wait`: for the first
    /// answer of discovery.
    fn begin<Req>(&self, request: Req, may_wait: bool) -> State<S, Req>
    where
        S: Service<Req> + Clone,
    {
        let mut pool = self.shared.pool.lock();
        let now = Instant::now();
        let error = match pool.pick(now) {
            Ok(Picked { service, node, permit }) => {
                return State::Calling {
                    call: service.oneshot(request),
                    report: Report {
                        node,
                        permit: Some(permit),
                        started: now,
                        given_up_after: self.shared.given_up_after,
                    },
                };
            }
            Err(Refused::Unknown) if may_wait => {
                let updates = pool.updates();
                return State::Waiting {
                    known: Box::pin(first_set(updates)),
                    request: Some(request),
                };
            }
            Err(Refused::Unknown) => NoEndpoints { target: self.shared.target.clone() }.into(),
            Err(Refused::NoEndpoints(error)) => error.into(),
            Err(Refused::AllOpen(error)) => error.into(),
        };
        State::Refused { error: Some(error) }
    }
}

/// Whether the set became known in time shows when it is used.
async fn first_set(mut updates: Updates) {
    let _ = tokio::time::timeout(FIRST_SET_WAIT, updates.known()).await;
}

pin_project! {
    /// The future of [`Balance`]. Dropping it cancels the call and reports it as
    /// given up.
    pub struct ResponseFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        balance: Balance<S, C>,
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
        Calling { #[pin] call: Oneshot<S, Req>, report: Report },
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
                StateProjection::Calling { call, report } => {
                    let result = ready!(call.poll(cx));
                    report.end(this.balance.classify.classify(result.as_ref()));
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
    node: Arc<Node>,
    permit: Option<Permit>,
    started: Instant,
    given_up_after: Duration,
}

impl Report {
    fn end(&mut self, class: Class) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.started);
        match class {
            Class::Success => self.node.load.lock().success(latency, now),
            Class::Failure | Class::Overloaded => self.node.load.lock().failure(latency, now),
            Class::Refused | Class::Ignore => {}
        }
        permit.settle(Verdict { class, latency, retry_after: None });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(permit) = self.permit.take() else {
            return;
        };
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.started);
        self.node.load.lock().given_up(elapsed, now);
        if elapsed >= self.given_up_after {
            permit.failure(elapsed);
        }
    }
}
