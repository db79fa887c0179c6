//! Rate, errors and duration of requests, by route, method and status.
//!
//! Handles are bound once and kept: a request costs two short look-ups and no formatting.
//! Every label is bounded: routes are the router's own templates, an unknown path is one
//! label, an invented method is one label, and a status is three digits.

use std::{collections::HashMap, sync::Arc};

use chassis_admission::{Door, RoutePriority};
use chassis_core::{Gauge, Histogram, Metrics, TraceContext, metrics::LATENCY_BUCKETS};
use http::Method;
use parking_lot::RwLock;

/// The route label of a request that no route matched.
const UNMATCHED: &str = "unmatched";

/// The metrics of one server.
pub(super) struct EdgeMetrics {
    metrics: Metrics,
    door: Door,
    active: Gauge,
    routes: RwLock<HashMap<String, Arc<RouteMetrics>>>,
    unmatched: Arc<RouteMetrics>,
}

impl EdgeMetrics {
    pub(super) fn bind(metrics: &Metrics, door: Door) -> EdgeMetrics {
        let active =
            metrics.gauge("http_server_active_requests", "Requests being answered right now.", &[]);
        let priority = RoutePriority::default();
        let unmatched = RouteMetrics::new(metrics.clone(), active.clone(), None, priority);
        EdgeMetrics {
            metrics: metrics.clone(),
            door,
            active,
            routes: RwLock::default(),
            unmatched: Arc::new(unmatched),
        }
    }

    /// The metrics of a route; `None` for a request that no route matched.
    pub(super) fn route(&self, template: Option<&str>) -> Arc<RouteMetrics> {
        let Some(template) = template else { return self.unmatched.clone() };
        if let Some(known) = self.routes.read().get(template) {
            return known.clone();
        }
        self.routes
            .write()
            .entry(template.to_owned())
            .or_insert_with(|| {
                let priority = self.door.route(template).unwrap_or_default();
                Arc::new(RouteMetrics::new(
                    self.metrics.clone(),
                    self.active.clone(),
                    Some(template.to_owned()),
                    priority,
                ))
            })
            .clone()
    }
}

/// The metrics of one route, and how important it is.
pub(super) struct RouteMetrics {
    metrics: Metrics,
    /// That of the server.
    active: Gauge,
    template: Option<String>,
    priority: RoutePriority,
    /// By method and status: so few that looking at each is quicker than a hash.
    durations: RwLock<Vec<((&'static str, u16), Histogram)>>,
}

impl RouteMetrics {
    fn new(
        metrics: Metrics,
        active: Gauge,
        template: Option<String>,
        priority: RoutePriority,
    ) -> RouteMetrics {
        RouteMetrics { metrics, active, template, priority, durations: RwLock::default() }
    }

    /// Requests of the server that are being answered.
    pub(super) fn active(&self) -> &Gauge {
        &self.active
    }

    /// The route's template, such as `/items/{id}`.
    pub(super) fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// How important its requests are, if nobody says otherwise.
    pub(super) fn priority(&self) -> RoutePriority {
        self.priority
    }

    /// Observes the duration of a request of this method and status, in seconds.
    pub(super) fn observe(
        &self,
        method: &'static str,
        status: u16,
        seconds: f64,
        trace: &TraceContext,
    ) {
        let key = (method, status);
        if let Some((_, known)) = self.durations.read().iter().find(|(known, _)| *known == key) {
            return known.observe_traced(seconds, trace);
        }
        let histogram = self.metrics.histogram(
            "http_server_request_duration_seconds",
            "Time from the head of a request to the end of its answer.",
            &[
                ("http_request_method", method),
                ("http_route", self.template().unwrap_or(UNMATCHED)),
                ("http_response_status_code", &status.to_string()),
            ],
            LATENCY_BUCKETS,
        );
        histogram.observe_traced(seconds, trace);
        let mut durations = self.durations.write();
        if durations.iter().all(|(known, _)| *known != key) {
            durations.push((key, histogram));
        }
    }
}

/// The label of a method: the known ones, and one for all others.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use chassis_admission::AdmissionConfig;
    use chassis_core::{Code, Env};

    use super::*;

    #[test]
    fn invented_methods_share_one_label() {
        assert_eq!(method_label(&Method::GET), "GET");
        for name in ["BREW", "get", "X-1"] {
            assert_eq!(method_label(&Method::from_bytes(name.as_bytes()).unwrap()), "_OTHER");
        }
    }

    #[test]
    fn a_route_is_bound_once() {
        let env = Env::test("t");
        let config = AdmissionConfig::default();
        let door = Door::new(&config, &env, "http", Code::Unavailable, None).unwrap();
        let edge = EdgeMetrics::bind(env.metrics(), door);
        let one = edge.route(Some("/items/{id}"));
        assert!(Arc::ptr_eq(&one, &edge.route(Some("/items/{id}"))));
        assert!(!Arc::ptr_eq(&one, &edge.route(None)));
        one.observe("GET", 200, 0.01, &TraceContext::root(false));
        let text = edge.metrics.encode();
        assert!(text.contains(r#"http_route="/items/{id}""#), "{text}");
    }
}
