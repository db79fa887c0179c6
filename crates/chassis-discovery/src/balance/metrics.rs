//! What a balancer shows of itself, bound once per target.

use std::sync::OnceLock;

use chassis_core::metrics::{Counter, Gauge, Metrics};
use chassis_resilience::breaker::State;

use crate::Target;

/// Handles of one balancer, once they are bound. Endpoints are not labels: they come and go.
#[derive(Default)]
pub(crate) struct Shown(OnceLock<Handles>);

struct Handles {
    endpoints: Gauge,
    ejected: Gauge,
    unreachable: Gauge,
    dark: Counter,
    no_endpoints: Counter,
    all_open: Counter,
    trials: Counter,
    panics: Counter,
    opened: Counter,
    half_opened: Counter,
    closed: Counter,
}

impl Shown {
    /// Only the first binding counts: a second would split the numbers.
    pub(crate) fn bind(&self, metrics: &Metrics, target: &Target) {
        let of = [("service", target.service.as_str()), ("protocol", target.protocol.as_str())];
        let [service, protocol] = of;
        let rejected = |reason| {
            metrics.counter(
                "client_balancer_rejected",
                "Calls that found no endpoint to go to.",
                &[service, protocol, ("reason", reason)],
            )
        };
        let transitions = |to| {
            metrics.counter(
                "client_breaker_transitions",
                "Changes of state of the circuits to the endpoints of a service.",
                &[service, protocol, ("to", to)],
            )
        };
        self.0.get_or_init(|| Handles {
            endpoints: metrics.gauge(
                "client_balancer_endpoints",
                "Endpoints of a service that calls are sent to.",
                &of,
            ),
            ejected: metrics.gauge(
                "client_balancer_ejected",
                "Endpoints that are walked past because their circuit is not closed.",
                &of,
            ),
            unreachable: metrics.gauge(
                "client_balancer_unreachable",
                "Endpoints that no connection can be made to, so that they get no calls.",
                &of,
            ),
            trials: metrics.counter(
                "client_balancer_trials",
                "Calls to an endpoint that was not the best one, to see how it is.",
                &of,
            ),
            panics: metrics.counter(
                "client_balancer_panic_picks",
                "Calls that were spread over all endpoints because too few are healthy.",
                &of,
            ),
            no_endpoints: rejected("no_endpoints"),
            all_open: rejected("all_open"),
            dark: rejected("unreachable"),
            opened: transitions("open"),
            half_opened: transitions("half_open"),
            closed: transitions("closed"),
        });
    }

    fn with(&self, show: impl FnOnce(&Handles)) {
        if let Some(handles) = self.0.get() {
            show(handles);
        }
    }

    pub(crate) fn endpoints(&self, count: usize) {
        self.with(|handles| handles.endpoints.set(number(count)));
    }

    pub(crate) fn ejected(&self, count: usize) {
        self.with(|handles| handles.ejected.set(number(count)));
    }

    pub(crate) fn unreachable(&self, count: usize) {
        self.with(|handles| handles.unreachable.set(number(count)));
    }

    pub(crate) fn dark(&self) {
        self.with(|handles| handles.dark.inc());
    }

    pub(crate) fn no_endpoints(&self) {
        self.with(|handles| handles.no_endpoints.inc());
    }

    pub(crate) fn all_open(&self) {
        self.with(|handles| handles.all_open.inc());
    }

    pub(crate) fn trial(&self) {
        self.with(|handles| handles.trials.inc());
    }

    pub(crate) fn panic(&self) {
        self.with(|handles| handles.panics.inc());
    }

    pub(crate) fn transition(&self, to: State) {
        self.with(|handles| match to {
            State::Open | State::ForcedOpen => handles.opened.inc(),
            State::HalfOpen => handles.half_opened.inc(),
            State::Closed | State::Disabled | State::MetricsOnly => handles.closed.inc(),
        });
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
