//! One instance as the health endpoint describes it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::Endpoint;

/// An entry of `/v1/health/service/NAME`; what we do not use is left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    node: Node,
    service: Service,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Service {
    address: String,
    port: u16,
    meta: Option<BTreeMap<String, String>>,
    weights: Weights,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

impl Instance {
    /// The endpoint; none where the address is no IP address or there is no port.
    pub(super) fn endpoint(self) -> Option<Endpoint> {
        // A service without an address of its own has that of its node.
        let address = match self.service.address.is_empty() {
            true => &self.node.address,
            false => &self.service.address,
        };
        let ip: Option<IpAddr> = address.parse().ok();
        let Some(ip) = ip.filter(|_| self.service.port != 0) else {
            tracing::debug!(address, port = self.service.port, "not an endpoint, left out");
            return None;
        };
        let endpoint = Endpoint::new(SocketAddr::new(ip, self.service.port))
            .with_weight(self.service.weights.passing);
        let meta = self.service.meta.unwrap_or_default();
        Some(
            meta.into_iter()
                .fold(endpoint, |endpoint, (name, value)| endpoint.with_label(name, value)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(service: serde_json::Value) -> Option<Endpoint> {
        let entry = serde_json::json!({ "Node": { "Address": "10.0.0.9" }, "Service": service });
        serde_json::from_value::<Instance>(entry).unwrap().endpoint()
    }

    #[test]
    fn instances() {
        let full = serde_json::json!({
            "Address": "10.0.0.1", "Port": 80, "Weights": { "Passing": 3, "Warning": 1 },
            "Meta": { "version": "2", "zone": "a", "tier": "gold" },
        });
        let expected = Endpoint::new(([10, 0, 0, 1], 80).into())
            .with_weight(3)
            .with_version("2")
            .with_zone("a")
            .with_label("tier", "gold");
        assert_eq!(endpoint(full), Some(expected));
        let bare = serde_json::json!({ "Address": "", "Port": 80, "Meta": null });
        assert_eq!(endpoint(bare), Some(Endpoint::new(([10, 0, 0, 9], 80).into())));
        let no_port = serde_json::json!({ "Address": "10.0.0.1", "Port": 0 });
        assert_eq!(endpoint(no_port), None);
        let no_ip = serde_json::json!({ "Address": "db.internal", "Port": 80 });
        assert_eq!(endpoint(no_ip), None);
    }
}
