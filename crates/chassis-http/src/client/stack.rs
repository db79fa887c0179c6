//! The column of layers that every call goes through, and why each stands where it does.
//!
//! ```text
//!   RequestBuilder::send_or   something less; only for a call that has it
//!   RequestBuilder::send      answers that are kept; only if a cache is configured
//!   Client::send          context, trace headers, span, metrics: once for a call
//!   ── WithDeadline       the whole call
//!   ── Retry              attempts, paid out of the budget
//!   ── Hedge              a second copy of a late attempt; only if it is configured
//!   ── HoldBack           a rate, a throttle, a measured limit; only if one is configured
//!   ── Timeout            one attempt
//!   ── Bulkhead           places in this process
//!   ── Balance            one endpoint; its circuit breaker and its load
//!   ── Chaos              faults on purpose; one read unless somebody has set a rule
//!   ── Transport          the wire: time left, attempts before
//! ```

use std::time::Duration;

use chassis_core::{BoxError, Error, Metrics};
use chassis_discovery::{Affinity, Balance, ClientConfig, Discovery, HoldBack, IfSent, Target};
use chassis_resilience::{
    Class, Classify, GuardLayer, Guarded,
    bulkhead::BulkheadService,
    chaos::{Chaos, ChaosLayer, ChaosService},
    hedge::{Hedge, HedgeLayer, HedgeService},
    retry::{Retry, RetryLayer},
    timeout::{Timeout, TimeoutLayer},
};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tower::{Layer, ServiceBuilder, util::Either};

use super::{
    deadline::{WithDeadline, WithDeadlineLayer},
    payload::Payload,
    policy::{IfSafe, refused_unread},
    transport::{Pools, Transport},
};
use crate::problem::retry_after;

/// The stack of a client, outermost first.
pub(super) type Stack = WithDeadline<Retry<IfSafe, Either<HedgeService<IfSafe, Attempt>, Attempt>>>;

/// One attempt.
type Attempt = Either<Guarded<Made, HoldBack, IfSent<ByStatus>>, Made>;
type Made = Timeout<BulkheadService<Balance<Endpoint, ByStatus, Request<Payload>>>>;

/// One endpoint, and what is done to it on purpose.
type Endpoint = ChaosService<Transport, Named, fn(&Request<Payload>) -> Option<Request<Payload>>>;
type Named = fn(&Request<Payload>) -> String;

pub(super) fn build(
    target: Target,
    discovery: &Discovery,
    config: &ClientConfig,
    metrics: Option<&Metrics>,
    chaos: Chaos,
) -> Stack {
    let updates = discovery.resolver().watch(&target);
    let unseen = Metrics::default();
    let hold_back = HoldBack::new(config, &target, metrics.unwrap_or(&unseen));
    let pools = Pools::new(config, &target, metrics);
    let named: Named = |request| format!("{}{}", request.body().target(), request.uri().path());
    let chaos = ChaosLayer::new(chaos, named, second as fn(&_) -> _);
    let balance = Balance::new(
        target,
        updates,
        // Next to the wire, where all that should notice stands above.
        move |endpoint| chaos.layer(pools.transport(endpoint.address)),
        ByStatus,
        |request: &Request<Payload>| request.extensions().get::<Affinity>().copied(),
        config.balance_settings(discovery),
    );
    if let Some(metrics) = metrics {
        balance.bind(metrics);
    }
    let policy = IfSafe { max_replay: config.max_replay };
    let budget = config.retry_budget();
    let hedge = config.hedge.settings().map(Hedge::new);
    ServiceBuilder::new()
        // First, because it holds for everything below: attempts, pauses and queues together
        // may not take longer than the caller waits. A call without time left is not begun.
        .layer(WithDeadlineLayer)
        // Above the time-out, so that an attempt that took too long may be repeated; above the
        // balancer, so that the repetition goes to another endpoint.
        .layer(RetryLayer::new(policy, config.retry_settings(), budget.clone()))
        // Below retry, whose budget it shares; above all that the copy should pass anew, so
        // that it goes to another endpoint and has a place and a time of its own.
        .option_layer(hedge.map(|hedge| HedgeLayer::new(policy, hedge, budget)))
        // Below retry, because a retry is a call too, and what is held back is never retried;
        // above the time-out, because a callee that does not answer is asked too much.
        .option_layer(hold_back.map(|hold_back| GuardLayer::new(hold_back, IfSent(ByStatus))))
        // Below retry: it is one attempt's share of the deadline. Above the bulkhead, so that
        // waiting for a place counts.
        .layer(TimeoutLayer::new(config.attempt_timeout))
        // Below the time-out, so that what timed out gives its place back at once. It bounds
        // what one slow service can hold of this process.
        .layer(config.bulkhead())
        // Last: by now the call is allowed and has a place, so the endpoint is picked from
        // what is known now. Below it, one circuit breaker per endpoint.
        .service(balance)
}

/// The second of two that chaos sends, if there can be one.
fn second(request: &Request<Payload>) -> Option<Request<Payload>> {
    IfSafe { max_replay: usize::MAX }.copy(request)
}

/// Which answers count against an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByStatus;

impl Classify<http::Response<Incoming>, BoxError> for ByStatus {
    fn classify(&self, result: Result<&http::Response<Incoming>, &BoxError>) -> Class {
        let error = match result {
            // It works and has no room: not a failure, or the breaker would take it out whole.
            Ok(response) if refused_unread(response).is_some() => return Class::Overloaded,
            Ok(response) => return by_status(response.status()),
            Err(error) => error.downcast_ref::<Error>(),
        };
        match error.map(Error::reason) {
            // The caller's own doing says nothing about the endpoint.
            Some(super::error::BODY_FAILED | super::error::DEADLINE_EXCEEDED) => Class::Ignore,
            Some(super::error::CONNECT_FAILED) => Class::Unreachable,
            // It had closed the connection before it saw the request, as it may.
            _ if error.is_some_and(Error::was_not_sent) => Class::Refused,
            _ => Class::Failure,
        }
    }

    fn retry_after(
        &self,
        result: Result<&http::Response<Incoming>, &BoxError>,
    ) -> Option<Duration> {
        retry_after(result.ok()?.headers())
    }
}

pub(super) fn by_status(status: StatusCode) -> Class {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Class::Failure,
        // It works and says that it is asked too often.
        StatusCode::TOO_MANY_REQUESTS => Class::Overloaded,
        _ => Class::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_endpoints_own_failures_count_against_it() {
        for (status, class) in [
            (200, Class::Success),
            (404, Class::Success),
            (409, Class::Success),
            (429, Class::Overloaded),
            (500, Class::Failure),
            (501, Class::Success),
            (503, Class::Failure),
        ] {
            assert_eq!(by_status(StatusCode::from_u16(status).unwrap()), class, "{status}");
        }
    }
}
