//! Which methods there are, and their metrics, bound once.
//!
//! A path is text from outside, and each new label is memory for ever. So a
//! method becomes a label only after it has once been answered with anything but
//! `UNIMPLEMENTED`, which only a method that exists can do; all others share one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chassis_core::metrics::{Histogram, LATENCY_BUCKETS, Metrics};
use chassis_core::{Code, TraceContext};
use parking_lot::RwLock;

use super::outcome::Outcome;
use super::streams::Messages;

/// The label of a method that is not known.
pub(crate) const OTHER: &str = "_other";
/// Most methods that get a label of their own.
const MAX_METHODS: usize = 512;
/// Codes of gRPC with 0 for success.
const CODES: usize = 17;

/// The duration histograms of one side of calls.
pub(crate) struct Methods {
    metrics: Metrics,
    family: Family,
    known: RwLock<HashMap<Box<str>, Arc<Method>>>,
    other: Arc<Method>,
}

/// Name, help and the labels that all methods share.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: Vec<(&'static str, String)>,
}

/// One method with a histogram for each code that it has ended with.
pub(crate) struct Method {
    name: Box<str>,
    by_code: [OnceLock<Histogram>; CODES],
    messages: OnceLock<Messages>,
    metrics: Metrics,
}

impl Method {
    fn new(name: &str, metrics: &Metrics) -> Arc<Method> {
        Arc::new(Method {
            name: name.into(),
            by_code: Default::default(),
            messages: OnceLock::new(),
            metrics: metrics.clone(),
        })
    }

    /// Counts the messages of a server; not bound before there is one.
    pub(crate) fn messages(&self) -> &Messages {
        self.messages.get_or_init(|| Messages::new(&self.metrics, &self.name))
    }
}

impl Methods {
    pub(crate) fn new(metrics: &Metrics, family: Family) -> Methods {
        Methods {
            metrics: metrics.clone(),
            family,
            known: RwLock::default(),
            other: Method::new(OTHER, metrics),
        }
    }

    /// The method, if it has a label of its own.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Method>> {
        self.known.read().get(name).cloned()
    }

    /// Whether the method has a label of its own.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.known.read().contains_key(name)
    }

    /// The method of a call that has ended so.
    pub(crate) fn of(&self, name: &str, outcome: &Outcome) -> Arc<Method> {
        match self.find(name) {
            Some(method) => method,
            None if outcome.code() == Some(Code::Unimplemented) => Arc::clone(&self.other),
            None => self.learn(name),
        }
    }

    /// Counts one call of a method.
    pub(crate) fn observe(
        &self,
        method: &Method,
        outcome: &Outcome,
        took: Duration,
        trace: &TraceContext,
    ) {
        let index = outcome.code().map_or(0, |code| code.grpc() as usize);
        if let Some(slot) = method.by_code.get(index) {
            let histogram = slot.get_or_init(|| self.bind(method, outcome.name()));
            histogram.observe_traced(took.as_secs_f64(), trace);
        }
    }

    /// The method of a call that has been answered.
    pub(crate) fn learn(&self, name: &str) -> Arc<Method> {
        let mut known = self.known.write();
        if known.len() >= MAX_METHODS && !known.contains_key(name) {
            return Arc::clone(&self.other);
        }
        let method = known.entry(name.into()).or_insert_with(|| Method::new(name, &self.metrics));
        Arc::clone(method)
    }

    fn bind(&self, method: &Method, code: &'static str) -> Histogram {
        let mut labels: Vec<(&'static str, &str)> =
            self.family.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        labels.push(("rpc_method", &method.name));
        labels.push(("rpc_response_status_code", code));
        self.metrics.histogram(self.family.name, self.family.help, &labels, LATENCY_BUCKETS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_that_exist_become_labels_and_not_without_end() {
        let metrics = Metrics::default();
        let family = Family { name: "took_seconds", help: "Time.", labels: Vec::new() };
        let methods = Methods::new(&metrics, family);
        let trace = TraceContext::root(true);
        let unknown = Outcome::failed(Code::Unimplemented, "");
        let observe = |name: &str, outcome| {
            methods.observe(&methods.of(name, outcome), outcome, Duration::ZERO, &trace);
        };
        for n in 0..2_000 {
            observe(&format!("scan/{n}"), &unknown);
        }
        observe("greeter/Greet", &Outcome::Ok);
        observe("greeter/Greet", &unknown);
        let text = metrics.encode();
        assert!(!text.contains("scan/"), "{text}");
        assert!(text.contains("rpc_method=\"_other\""), "{text}");
        let exemplar = format!("# {{trace_id=\"{}\"", trace.trace_id);
        assert!(text.contains(&exemplar), "{text}");
        let mine = "rpc_method=\"greeter/Greet\",rpc_response_status_code=\"OK\"";
        assert!(text.contains(mine), "{text}");

        for n in 0..2_000 {
            observe(&format!("made/{n}"), &Outcome::Ok);
        }
        assert!(methods.known.read().len() <= MAX_METHODS);
    }
}
