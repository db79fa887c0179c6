//! Rate, errors and duration of the calls of one client, by method and outcome.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use chassis_core::{Histogram, Metrics, TraceContext, metrics::LATENCY_BUCKETS};
use http::StatusCode;
use parking_lot::RwLock;

/// How a call ended: the status of an answer, or the reason why there is none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Answered(StatusCode),
    Failed(String),
}

impl Outcome {
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Outcome::Answered(status) => Cow::Owned(status.as_str().to_owned()),
            Outcome::Failed(reason) => Cow::Borrowed(reason),
        }
    }
}

/// The metrics of one client. Outcomes are statuses and the reasons of this crate: a few.
pub(super) struct ClientMetrics {
    metrics: Metrics,
    service: Arc<str>,
    durations: RwLock<HashMap<(&'static str, Outcome), Histogram>>,
}

impl ClientMetrics {
    pub(super) fn new(metrics: Metrics, service: Arc<str>) -> ClientMetrics {
        ClientMetrics { metrics, service, durations: RwLock::default() }
    }

    /// Counts an answer that is less than one of the callee's: `cached`, `default` or `queued`.
    pub(super) fn degraded(&self, kind: &str) {
        let counter = self.metrics.counter(
            "client_degraded_answers",
            "Answers of a fallback: an earlier one, a default, or a promise to do it later.",
            &[("service", &self.service), ("protocol", "http"), ("kind", kind)],
        );
        counter.inc();
    }

    /// Counts a call with this method and outcome that took so many seconds.
    pub(super) fn observe(
        &self,
        method: &'static str,
        outcome: &Outcome,
        seconds: f64,
        trace: &TraceContext,
    ) {
        // The usual outcomes, which are statuses, are found without allocating.
        let key = (method, outcome.clone());
        if let Some(known) = self.durations.read().get(&key) {
            return known.observe_traced(seconds, trace);
        }
        let histogram = self.metrics.histogram(
            "http_client_request_duration_seconds",
            "Time from a call to the head of its answer, with retries.",
            &[
                ("server_address", &self.service),
                ("http_request_method", method),
                ("outcome", &outcome.text()),
            ],
            LATENCY_BUCKETS,
        );
        self.durations.write().entry(key).or_insert(histogram).observe_traced(seconds, trace);
    }
}
