//! The slices of one Service, and the endpoints in them: the brain.
//!
//! Who is ready is called. Where nobody is, those that are shutting down but
//! still serve are called: during a rollout gone wrong, that is better than
//! nobody (as kube-proxy does, KEP-1669). An address in two slices counts once,
//! and is ready if one of them says so.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::event::{Slice, SliceEndpoint};
use crate::Endpoint;
use crate::resolver::MAX_ENDPOINTS;

/// The label that a Service passes on to its slices, by convention the version.
const VERSION: &str = "app.kubernetes.io/version";

/// The slices by name, read for one port.
#[derive(Debug)]
pub(super) struct Slices {
    port: String,
    by_name: BTreeMap<String, Vec<(Endpoint, State)>>,
}

/// Whether an endpoint may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Shutting down, but still answering.
    Leaving,
}

impl Slices {
    pub(super) fn new(port: String) -> Slices {
        Slices { port, by_name: BTreeMap::new() }
    }

    /// A slice as it is now.
    pub(super) fn put(&mut self, slice: Slice) {
        let known: usize = self.by_name.values().map(Vec::len).sum();
        if known > MAX_ENDPOINTS && !self.by_name.contains_key(&slice.metadata.name) {
            tracing::warn!(slice = slice.metadata.name, "too many endpoints, a slice is left out");
            return;
        }
        let endpoints = self.read(&slice);
        self.by_name.insert(slice.metadata.name, endpoints);
    }

    /// A slice is gone.
    pub(super) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// The endpoints to call.
    pub(super) fn set(&self) -> Vec<Endpoint> {
        let of = |wanted: State| {
            let mut seen = HashSet::new();
            self.by_name
                .values()
                .flatten()
                .filter(|(endpoint, state)| *state == wanted && seen.insert(endpoint.address))
                .map(|(endpoint, _)| endpoint.clone())
                .collect::<Vec<_>>()
        };
        let ready = of(State::Ready);
        if ready.is_empty() { of(State::Leaving) } else { ready }
    }

    fn read(&self, slice: &Slice) -> Vec<(Endpoint, State)> {
        let Some(port) = self.port_of(slice) else { return Vec::new() };
        if slice.address_type == "FQDN" {
            tracing::warn!(slice = slice.metadata.name, "names are not looked up; left out");
            return Vec::new();
        }
        let labels = slice.metadata.labels.as_ref();
        let version = labels.and_then(|labels| labels.get(VERSION));
        let mut read = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(state) = state(endpoint) else { continue };
            // All addresses of an endpoint are the same pod; the first is enough.
            let ip: Option<IpAddr> = endpoint.addresses.first().and_then(|ip| ip.parse().ok());
            let Some(ip) = ip else { continue };
            let mut found = Endpoint::new(SocketAddr::new(ip, port));
            if let Some(version) = version {
                found = found.with_version(version);
            }
            if let Some(zone) = &endpoint.zone {
                found = found.with_zone(zone);
            }
            if let Some(node) = &endpoint.node_name {
                found = found.with_label("node", node);
            }
            if let Some(pod) = &endpoint.target_ref {
                found = found.with_label("pod", &pod.name);
            }
            read.push((found, state));
        }
        read
    }

    /// The port of that name, or the only one there is.
    fn port_of(&self, slice: &Slice) -> Option<u16> {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let named = ports.iter().find(|port| port.name.as_deref() == Some(&self.port));
        match (named, ports) {
            (Some(named), _) => named.port,
            (None, [only]) => only.port,
            _ => None,
        }
    }
}

/// What the conditions mean. Not said is, after the API's reference: `ready` is
/// to be taken as true, `serving` as `ready`, `terminating` as false.
fn state(endpoint: &SliceEndpoint) -> Option<State> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|is| is.ready).unwrap_or(true);
    let serving = conditions.and_then(|is| is.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|is| is.terminating).unwrap_or(false);
    match (ready, serving, terminating) {
        // Ready and terminating is what a Service that publishes also those that
        // are not ready says; who leaves is not called first there either.
        (true, _, false) => Some(State::Ready),
        (_, true, true) => Some(State::Leaving),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: Value) -> Slice {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { VERSION: "2" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }, { "name": "grpc", "port": 50051 }],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn with(conditions: Value) -> Value {
        json!([{ "addresses": ["10.0.0.1"], "conditions": conditions }])
    }

    fn addresses(slices: &Slices) -> Vec<String> {
        slices.set().iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[test]
    fn conditions_decide_who_is_called() {
        for (called, conditions) in [
            (true, json!(null)),
            (true, json!({})),
            (true, json!({ "ready": true, "serving": true, "terminating": false })),
            (false, json!({ "ready": false })),
            (false, json!({ "ready": false, "serving": false, "terminating": true })),
            (false, json!({ "ready": false, "serving": true })),
            // Nobody is ready, so who leaves and still serves is called.
            (true, json!({ "ready": false, "serving": true, "terminating": true })),
        ] {
            let mut slices = Slices::new("http".into());
            slices.put(slice("a", with(conditions.clone())));
            assert_eq!(!slices.set().is_empty(), called, "{conditions}");
        }
    }

    #[test]
    fn who_leaves_is_not_called_while_somebody_is_ready() {
        let mut slices = Slices::new("http".into());
        let leaving = json!({ "ready": false, "serving": true, "terminating": true });
        slices.put(slice("a", with(leaving.clone())));
        slices.put(slice("b", json!([{ "addresses": ["10.0.0.2"] }])));
        assert_eq!(addresses(&slices), ["10.0.0.2:8080"]);
        slices.remove("b");
        assert_eq!(addresses(&slices), ["10.0.0.1:8080"]);
        // The same pod in two slices: ready if one says so.
        slices.put(slice("c", json!([{ "addresses": ["10.0.0.1"] }])));
        assert_eq!(addresses(&slices), ["10.0.0.1:8080"]);
    }

    #[test]
    fn several_slices_are_one_set_without_repetitions() {
        let mut slices = Slices::new("grpc".into());
        let full = json!([
            { "addresses": ["10.0.0.1"], "zone": "a", "nodeName": "n1",
              "targetRef": { "kind": "Pod", "name": "greeter-x" } },
            { "addresses": ["10.0.0.2"] },
        ]);
        slices.put(slice("a", full));
        slices.put(slice("b", json!([{ "addresses": ["10.0.0.2"] }, { "addresses": ["::1"] }])));
        let set = slices.set();
        assert_eq!(set.len(), 3);
        let first = Endpoint::new(([10, 0, 0, 1], 50051).into())
            .with_version("2")
            .with_zone("a")
            .with_label("node", "n1")
            .with_label("pod", "greeter-x");
        assert_eq!(set[0], first);
    }

    #[test]
    fn the_port_is_the_named_or_the_only_one() {
        let mut slices = Slices::new("smtp".into());
        slices.put(slice("a", json!([{ "addresses": ["10.0.0.1"] }])));
        assert!(slices.set().is_empty(), "two ports, none of that name");
        let mut only = slice("a", json!([{ "addresses": ["10.0.0.1"] }]));
        only.ports.as_mut().unwrap().truncate(1);
        slices.put(only);
        assert_eq!(addresses(&slices), ["10.0.0.1:8080"]);
        let mut names = slice("a", json!([{ "addresses": ["10.0.0.1"] }]));
        names.address_type = "FQDN".into();
        slices.put(names);
        assert!(slices.set().is_empty());
    }
}
