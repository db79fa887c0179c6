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
    /// Deliveries that a message had when it was done with.
    pub(super) attempts: Histogram,
    pub(super) upcast: Counter,
    pub(super) released: Counter,
    pub(super) batches: Histogram,
    pub(super) batches_split: Counter,
    pub(super) paused: Gauge,
    pub(super) pauses: Counter,
    pub(super) early: Counter,
    pub(super) gone_on: Counter,
    pub(super) gaps_dead: Counter,
    pub(super) late_handled: Counter,
    pub(super) late_skipped: Counter,
    pub(super) waiting: Gauge,
    pub(super) unanswered: Gauge,
}

/// Bounds for numbers of deliveries.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 18.0];
/// Bounds for numbers of events.
const BATCHES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

impl Meters {
    pub(super) fn new(metrics: &Metrics, group: &str, topic: &str) -> Meters {
        let labels = [("group", group), ("topic", topic)];
        let retried = |how| {
            let labels = [("group", group), ("topic", topic), ("how", how)];
            metrics.counter("consumer_retried", "Tries after a failed one.", &labels)
        };
        let lag = |state| {
            let labels = [("group", group), ("topic", topic), ("state", state)];
            let help = "Messages that the group has not done, as the broker last said.";
            metrics.gauge("consumer_lag", help, &labels)
        };
        let gaps = |end| {
            let labels = [("group", group), ("topic", topic), ("end", end)];
            let help = "Messages whose predecessor did not come.";
            metrics.counter("consumer_gaps", help, &labels)
        };
        let late = |end| {
            let labels = [("group", group), ("topic", topic), ("end", end)];
            let help = "Messages that came when those behind them had gone on.";
            metrics.counter("consumer_late", help, &labels)
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
            attempts: metrics.histogram(
                "consumer_attempts",
                "Deliveries until a message was handled or given up.",
                &labels,
                ATTEMPTS,
            ),
            upcast: metrics.counter(
                "consumer_upcast",
                "Messages of an older version that were turned into the new one.",
                &labels,
            ),
            released: metrics.counter(
                "consumer_released",
                "Deliveries given back untried and uncounted.",
                &labels,
            ),
            batches: metrics.histogram(
                "consumer_batch_events",
                "Events of a batch that was committed.",
                &labels,
                BATCHES,
            ),
            batches_split: metrics.counter(
                "consumer_batches_split",
                "Batches that failed and were tried in halves.",
                &labels,
            ),
            paused: metrics.gauge(
                "consumer_paused",
                "1 while the topic is left alone because its handlers fail.",
                &labels,
            ),
            pauses: metrics.counter(
                "consumer_pauses",
                "How often the topic began to be left alone.",
                &labels,
            ),
            early: metrics.counter(
                "consumer_early",
                "Deliveries sent back because the message before was not handled.",
                &labels,
            ),
            gone_on: gaps("gone_on"),
            gaps_dead: gaps("dead_lettered"),
            late_handled: late("handled"),
            late_skipped: late("skipped"),
            waiting: lag("waiting"),
            unanswered: lag("unanswered"),
        }
    }
}
