//! What a consumer counts, bound once for each topic.

use chassis_core::metrics::{LATENCY_BUCKETS, Metrics};
use chassis_core::{Counter, Gauge, Histogram};

pub(super) struct Meters {
    pub(super) handled: Counter,
    pub(super) repeated: Counter,
    pub(super) ignored: Counter,
    pub(super) failed: Counter,
    pub(super) retried_now: Counter,
    pub(super) retried_later: Counter,
    pub(super) dead: Counter,
    pub(super) in_flight: Gauge,
    pub(super) duration: Histogram,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, group: &str, topic: &str) -> Meters {
        let labels = [("group", group), ("topic", topic)];
        let retried = |how| {
            let labels = [("group", group), ("topic", topic), ("how", how)];
            metrics.counter("consumer_retried", "Tries after a failed one.", &labels)
        };
        Meters {
            handled: metrics.counter(
                "consumer_handled",
                "Messages whose handler committed.",
                &labels,
            ),
            repeated: metrics.counter(
                "consumer_repeated",
                "Deliveries of messages that had been handled before.",
                &labels,
            ),
            ignored: metrics.counter(
                "consumer_ignored",
                "Messages for others: of other types, or redriven for another group.",
                &labels,
            ),
            failed: metrics.counter("consumer_failed", "Tries that failed.", &labels),
            retried_now: retried("now"),
            retried_later: retried("later"),
            dead: metrics.counter(
                "consumer_dead_lettered",
                "Messages that went to the dead letters.",
                &labels,
            ),
            in_flight: metrics.gauge("consumer_in_flight", "Messages in hand.", &labels),
            duration: metrics.histogram(
                "consumer_handle_seconds",
                "Time from a delivery to its answer.",
                &labels,
                LATENCY_BUCKETS,
            ),
        }
    }
}
