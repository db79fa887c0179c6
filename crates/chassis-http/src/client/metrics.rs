//! Rate, errors and duration of the calls of one client, by method and outcome.

use std::{collections::HashMap, sync::Arc};

use chassis_core::{Histogram, Metrics, metrics::LATENCY_BUCKETS};
use parking_lot::RwLock;

/// The metrics of one client. Outcomes are statuses and the reasons of this crate: a few.
pub(super) struct ClientMetrics {
    metrics: Metrics,
    service: Arc<str>,
    durations: RwLock<HashMap<(&'static str, String), Histogram>>,
}

impl ClientMetrics {
    pub(super) fn new(metrics: Metrics, service: Arc<str>) -> ClientMetrics {
        ClientMetrics { metrics, service, durations: RwLock::default() }
    }

    /// The histogram of durations of calls with this method and outcome, a status or a reason.
    pub(super) fn duration(&self, method: &'static str, outcome: &str) -> Histogram {
        let key = (method, outcome.to_owned());
        if let Some(known) = self.durations.read().get(&key) {
            return known.clone();
        }
        let histogram = self.metrics.histogram(
            "http_client_request_duration_seconds",
            "Time from a call to the head of its answer, with retries.",
            &[
                ("server_address", &self.service),
                ("http_request_method", method),
                ("outcome", outcome),
            ],
            LATENCY_BUCKETS,
        );
        self.durations.write().entry(key).or_insert(histogram).clone()
    }
}
