//! What a balancer shows of itself, bound once per target.

use chassis_core::metrics::{Counter, Gauge, Metrics};
use chassis_resilience::breaker::State;

use crate::Target;

/// Handles of one balancer. Endpoints are not labels: they come and go.
#[derive(Clone)]
pub(crate) struct BalanceMetrics {
    pub(crate) endpoints: Gauge,
    pub(crate) no_endpoints: Counter,
    pub(crate) all_open: Counter,
    opened: Counter,
    half_opened: Counter,
    closed: Counter,
}

impl BalanceMetrics {
    pub(crate) fn bind(metrics: &Metrics, target: &Target) -> BalanceMetrics {
        let (service, protocol) = (target.service.as_str(), target.protocol.as_str());
        let rejected = |reason| {
            metrics.counter(
                "client_balancer_rejected",
                "Calls that found no endpoint to go to.",
                &[("service", service), ("protocol", protocol), ("reason", reason)],
            )
        };
        let transitions = |to| {
            metrics.counter(
                "client_breaker_transitions",
                "Changes of state of the circuits to the endpoints of a service.",
                &[("service", service), ("protocol", protocol), ("to", to)],
            )
        };
        BalanceMetrics {
            endpoints: metrics.gauge(
                "client_balancer_endpoints",
                "Endpoints known for a service.",
                &[("service", service), ("protocol", protocol)],
            ),
            no_endpoints: rejected("no_endpoints"),
            all_open: rejected("all_open"),
            opened: transitions("open"),
            half_opened: transitions("half_open"),
            closed: transitions("closed"),
        }
    }

    pub(crate) fn transition(&self, to: State) {
        match to {
            State::Open | State::ForcedOpen => self.opened.inc(),
            State::HalfOpen => self.half_opened.inc(),
            State::Closed | State::Disabled | State::MetricsOnly => self.closed.inc(),
        }
    }
}
