//! What the relay shows: how much waits, for how long, and what became of it.

use chassis_core::metrics::LATENCY_BUCKETS;
use chassis_core::{Counter, Env, Gauge, Histogram};

use super::table::Backlog;

#[derive(Clone)]
pub(crate) struct RelayMetrics {
    depth: Gauge,
    oldest: Gauge,
    parked: Gauge,
    pub(crate) partitions: Gauge,
    pub(crate) published: Counter,
    pub(crate) refused: Counter,
    pub(crate) unanswered: Counter,
    pub(crate) latency: Histogram,
}

impl RelayMetrics {
    pub(crate) fn new(env: &Env) -> Self {
        let metrics = env.metrics();
        let failed = |reason| {
            let help = "Publishes that failed, by what the broker did.";
            metrics.counter("outbox_failed", help, &[("reason", reason)])
        };
        Self {
            depth: metrics.gauge("outbox_depth", "Rows that wait to be published.", &[]),
            oldest: metrics.gauge(
                "outbox_oldest_age_seconds",
                "Age of the oldest row that waits; 0 if none does.",
                &[],
            ),
            parked: metrics.gauge("outbox_parked", "Rows that were given up.", &[]),
            partitions: metrics.gauge(
                "outbox_partitions",
                "Partitions that this relay holds.",
                &[],
            ),
            published: metrics.counter("outbox_published", "Rows that the broker has.", &[]),
            refused: failed("refused"),
            unanswered: failed("unanswered"),
            latency: metrics.histogram(
                "outbox_publish_seconds",
                "From the event to the broker's acknowledgement.",
                &[],
                LATENCY_BUCKETS,
            ),
        }
    }

    pub(crate) fn backlog(&self, backlog: Backlog, now: i64) {
        self.depth.set(backlog.rows);
        self.parked.set(backlog.parked);
        self.oldest.set(backlog.oldest.map_or(0, |time| now.saturating_sub(time).max(0) / 1000));
    }
}
