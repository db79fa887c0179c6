//! Metrics for Prometheus, behind handles that are bound once.
//!
//! A look-up by name and labels costs hashing and locks, so it happens when a router or a
//! client is built and never for a call: [`Metrics::counter`] and its siblings give a handle
//! whose use is one atomic operation. The registry belongs to one service
//! ([`Env::metrics`](crate::Env::metrics)), not to the process.
//!
//! A family holds at most [`MAX_SERIES`] label sets; what comes after goes to one series
//! whose labels are all `_other`, so that a label made from user input cannot fill memory.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text,
    metrics::{counter, exemplar::HistogramWithExemplars, family, gauge},
    registry::Registry,
};

use crate::{TraceContext, telemetry::ProcessCollector};

/// Buckets for durations of calls, in seconds: the ones of the OpenTelemetry semantic
/// conventions for `http.server.request.duration`.
pub const LATENCY_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How many label sets one family may hold.
pub const MAX_SERIES: usize = 1_000;

type Labels = Vec<(String, String)>;

/// A counter: it only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(counter::Counter<u64, AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A gauge: it goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(gauge::Gauge);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.inc_by(n);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// What an exemplar says: a trace and the span in it. 71 characters of the 128 that
/// OpenMetrics allows.
type TraceLabels = Vec<(&'static str, String)>;

type Exemplified = HistogramWithExemplars<TraceLabels>;

/// A histogram, of durations in seconds or of sizes in bytes.
#[derive(Clone, Debug)]
pub struct Histogram(Exemplified);

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        self.0.observe(value, None, None);
    }

    /// Counts one observation of a call, and keeps the call as the exemplar of its bucket if
    /// its trace is sampled: only then is there a trace to look at.
    pub fn observe_traced(&self, value: f64, trace: &TraceContext) {
        if !trace.sampled {
            return self.observe(value);
        }
        let labels =
            vec![("trace_id", trace.trace_id.to_string()), ("span_id", trace.span_id.to_string())];
        self.0.observe(value, Some(labels), Some(SystemTime::now()));
    }
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl family::MetricConstructor<Exemplified> for Buckets {
    fn new_metric(&self) -> Exemplified {
        Exemplified::new(self.0.iter().copied())
    }
}

enum Family {
    Counter(family::Family<Labels, counter::Counter>),
    Gauge(family::Family<Labels, gauge::Gauge>),
    Histogram(family::Family<Labels, Exemplified, Buckets>),
}

struct Entry {
    family: Family,
    /// The label sets handed out so far.
    series: HashSet<Labels>,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    families: BTreeMap<&'static str, Entry>,
}

/// The metrics of one service. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Inner>>);

impl Metrics {
    /// The counter of this name with these labels; the exposition adds `_total` to the name.
    ///
    /// A name that is already another kind of metric gives a handle that nobody reads, and
    /// an error in the log: a metric is not worth a crash.
    #[must_use]
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        let mut inner = self.0.lock();
        let entry = inner.entry(name, |registry| {
            let family = family::Family::default();
            registry.register(name, help.trim_end_matches('.'), family.clone());
            Family::Counter(family)
        });
        let labels = entry.admit(labels);
        match &entry.family {
            Family::Counter(family) => Counter(family.get_or_create(&labels).clone()),
            _ => mismatch(name),
        }
    }

    /// The gauge of this name with these labels. See [`Metrics::counter`] for a name in use.
    #[must_use]
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Gauge {
        let mut inner = self.0.lock();
        let entry = inner.entry(name, |registry| {
            let family = family::Family::default();
            registry.register(name, help.trim_end_matches('.'), family.clone());
            Family::Gauge(family)
        });
        let labels = entry.admit(labels);
        match &entry.family {
            Family::Gauge(family) => Gauge(family.get_or_create(&labels).clone()),
            _ => mismatch(name),
        }
    }

    /// The histogram of this name with these labels; the first call decides its buckets,
    /// upper bounds in ascending order. See [`Metrics::counter`] for a name in use.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        buckets: &'static [f64],
    ) -> Histogram {
        let mut inner = self.0.lock();
        let entry = inner.entry(name, |registry| {
            let family = family::Family::new_with_constructor(Buckets(buckets));
            registry.register(name, help.trim_end_matches('.'), family.clone());
            Family::Histogram(family)
        });
        let labels = entry.admit(labels);
        match &entry.family {
            Family::Histogram(family) => Histogram(family.get_or_create(&labels).clone()),
            _ => {
                mismatch::<()>(name);
                Histogram(Exemplified::new(buckets.iter().copied()))
            }
        }
    }

    /// Shows a counter of the whole process among the metrics of this service.
    pub(crate) fn show(&self, name: &'static str, help: &'static str, counter: &Counter) {
        self.0.lock().registry.register(name, help.trim_end_matches('.'), counter.0.clone());
    }

    /// Shows the process and its runtime among the metrics of this service.
    pub(crate) fn show_process(&self) {
        self.0.lock().registry.register_collector(Box::new(ProcessCollector));
    }

    /// All metrics in OpenMetrics text, as Prometheus scrapes them.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.0.lock().registry) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        text
    }
}

impl Inner {
    fn entry(
        &mut self,
        name: &'static str,
        make: impl FnOnce(&mut Registry) -> Family,
    ) -> &mut Entry {
        let registry = &mut self.registry;
        self.families
            .entry(name)
            .or_insert_with(|| Entry { family: make(registry), series: HashSet::new() })
    }
}

impl Entry {
    /// The labels to use: the given ones while there is room, else the overflow series. They
    /// are sorted: the same labels in another sequence are the same series.
    fn admit(&mut self, labels: &[(&'static str, &str)]) -> Labels {
        let own = |value: &dyn Fn(&str) -> String| -> Labels {
            let mut own: Labels =
                labels.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
            own.sort();
            own
        };
        let wanted = own(&str::to_owned);
        if self.series.contains(&wanted) {
            return wanted;
        }
        if self.series.len() >= MAX_SERIES {
            return own(&|_| "_other".to_owned());
        }
        self.series.insert(wanted.clone());
        wanted
    }
}

fn mismatch<T: Default>(name: &str) -> T {
    tracing::error!(name, "this metric name is already used for another kind of metric");
    T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_the_same_series_are_the_same() {
        let metrics = Metrics::default();
        metrics.counter("calls", "Calls.", &[("route", "/a")]).inc();
        metrics.counter("calls", "Calls.", &[("route", "/a")]).add(2);
        metrics.gauge("depth", "Depth.", &[]).set(7);
        metrics.histogram("took_seconds", "Time.", &[], LATENCY_BUCKETS).observe(0.2);
        let text = metrics.encode();
        assert!(text.contains("calls_total{route=\"/a\"} 3"), "{text}");
        assert!(text.contains("depth{} 7"), "{text}");
        assert!(text.contains("took_seconds_bucket{le=\"0.25\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn labels_in_another_sequence_are_the_same_series() {
        let metrics = Metrics::default();
        metrics.counter("calls", "Calls.", &[("a", "1"), ("b", "2")]).inc();
        metrics.counter("calls", "Calls.", &[("b", "2"), ("a", "1")]).inc();
        let text = metrics.encode();
        assert_eq!(text.matches("calls_total{").count(), 1, "{text}");
        assert!(text.contains("calls_total{a=\"1\",b=\"2\"} 2"), "{text}");
    }

    #[test]
    fn a_sampled_call_is_the_exemplar_of_its_bucket() {
        let metrics = Metrics::default();
        let took = metrics.histogram("took_seconds", "Time.", &[], LATENCY_BUCKETS);
        let (sampled, unsampled) = (TraceContext::root(true), TraceContext::root(false));
        took.observe_traced(0.2, &sampled);
        took.observe_traced(0.2, &unsampled);
        took.observe_traced(2.0, &unsampled);
        let text = metrics.encode();
        let bucket = |le: &str| {
            text.lines().find(|line| line.contains(&format!("le=\"{le}\""))).unwrap_or_default()
        };
        let exemplar = format!(
            " 2 # {{trace_id=\"{}\",span_id=\"{}\"}} 0.2 ",
            sampled.trace_id, sampled.span_id
        );
        assert!(bucket("0.25").contains(&exemplar), "{text}");
        assert!(!bucket("2.5").contains('#'), "{text}");
    }

    #[test]
    fn labels_cannot_explode() {
        let metrics = Metrics::default();
        for n in 0..MAX_SERIES + 50 {
            metrics.counter("c", "C.", &[("user", &n.to_string())]).inc();
        }
        assert_eq!(metrics.counter("c", "C.", &[("user", "new")]).get(), 50);
        let series = metrics.encode().lines().filter(|line| line.starts_with("c_total")).count();
        assert_eq!(series, MAX_SERIES + 1);
    }

    #[test]
    fn a_name_in_use_for_another_kind_does_not_crash() {
        let metrics = Metrics::default();
        metrics.counter("x", "X.", &[]).inc();
        metrics.gauge("x", "X.", &[]).set(3);
        assert!(metrics.encode().contains("x_total{} 1"));
    }
}
