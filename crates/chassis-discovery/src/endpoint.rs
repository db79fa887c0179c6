//! What is found: an address, and what is known about it.
//!
//! Registries carry strings of others into this process, so what is kept of them
//! is bounded: in number and in length.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How many labels an endpoint keeps; more are dropped.
pub const MAX_LABELS: usize = 16;
/// How long a name or value of a label may be, in bytes; longer ones are dropped.
pub const MAX_LABEL_BYTES: usize = 256;
/// The greatest weight; a greater one counts as this.
pub const MAX_WEIGHT: u32 = 65_535;

/// One address that serves a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "Record")]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the calls in relation to the others; 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// The version of its code, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it runs, such as an availability zone, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What else was said about it; at most [`MAX_LABELS`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// An endpoint of weight 1 of which nothing else is known.
    pub fn new(address: SocketAddr) -> Endpoint {
        Endpoint { address, weight: 1, version: None, zone: None, labels: BTreeMap::new() }
    }

    /// The same endpoint with another weight; 0 counts as 1.
    pub fn with_weight(self, weight: u32) -> Endpoint {
        Endpoint { weight: weight.clamp(1, MAX_WEIGHT), ..self }
    }

    /// The same endpoint with a version; an empty or too long one is none.
    pub fn with_version(self, version: impl Into<String>) -> Endpoint {
        Endpoint { version: usable(version.into()), ..self }
    }

    /// The same endpoint with a zone; an empty or too long one is none.
    pub fn with_zone(self, zone: impl Into<String>) -> Endpoint {
        Endpoint { zone: usable(zone.into()), ..self }
    }

    /// The same endpoint with one label more. What is too much or too long is
    /// dropped; `version` and `zone` go where they belong.
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Endpoint {
        let (name, value) = (name.into(), value.into());
        match name.as_str() {
            "version" => return self.with_version(value),
            "zone" => return self.with_zone(value),
            _ => {}
        }
        let room = self.labels.len() < MAX_LABELS || self.labels.contains_key(&name);
        if let (true, Some(name), true) = (room, usable(name), value.len() <= MAX_LABEL_BYTES) {
            self.labels.insert(name, value);
        }
        self
    }

    /// The text that stands for it in a registry of keys and values.
    #[cfg(any(feature = "etcd", feature = "nats"))]
    pub(crate) fn to_json(&self) -> chassis_core::Result<String> {
        serde_json::to_string(self).map_err(chassis_core::Error::internal)
    }

    /// The value of a label; `version` and `zone` count as labels.
    pub fn label(&self, name: &str) -> Option<&String> {
        match name {
            "version" => self.version.as_ref(),
            "zone" => self.zone.as_ref(),
            _ => self.labels.get(name),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::new(address)
    }
}

fn usable(text: String) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_LABEL_BYTES).then_some(text)
}

/// An endpoint as somebody wrote it into a registry: not yet bounded.
#[derive(Deserialize)]
struct Record {
    address: SocketAddr,
    #[serde(default)]
    weight: u32,
    #[serde(default)]
    version: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl From<Record> for Endpoint {
    fn from(record: Record) -> Endpoint {
        let endpoint = Endpoint::new(record.address)
            .with_weight(record.weight)
            .with_version(record.version)
            .with_zone(record.zone);
        record
            .labels
            .into_iter()
            .fold(endpoint, |endpoint, (name, value)| endpoint.with_label(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_bounded() {
        let labels: BTreeMap<String, String> =
            (0..100).map(|n| (format!("l{n:03}"), "v".to_owned())).collect();
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        let text = serde_json::json!({
            "address": "10.0.0.7:80", "weight": 4_000_000_000u32, "zone": long, "labels": labels,
            "from a later version": true,
        });
        let endpoint: Endpoint = serde_json::from_value(text).unwrap();
        assert_eq!(endpoint.labels.len(), MAX_LABELS);
        assert_eq!((endpoint.weight, endpoint.zone), (MAX_WEIGHT, None));
    }

    #[test]
    fn what_is_written_is_read() {
        let endpoint = Endpoint::new("[::1]:80".parse().unwrap())
            .with_weight(3)
            .with_version("2")
            .with_zone("a")
            .with_label("tier", "gold");
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        let bare = Endpoint::new(([10, 0, 0, 7], 80).into());
        assert_eq!(serde_json::from_str::<Endpoint>(r#"{"address":"10.0.0.7:80"}"#).unwrap(), bare);
    }
}
