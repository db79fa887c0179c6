//! One service at the agent, with a check that must be passed again and again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::api::ConsulApi;
use crate::keeper::{Entry, Held};
use crate::{Endpoint, RegistryConfig, Target};

/// The entry of one endpoint.
pub(super) struct Registered {
    api: Arc<ConsulApi>,
    id: String,
    body: Value,
    heartbeat: Duration,
    written: bool,
}

impl Registered {
    pub(super) fn new(
        api: Arc<ConsulApi>,
        registry: &RegistryConfig,
        target: &Target,
        endpoint: Endpoint,
    ) -> Registered {
        let name = api.name(target);
        let id = id(&name, &endpoint);
        let mut meta = endpoint.labels;
        meta.extend(endpoint.version.map(|version| ("version".to_owned(), version)));
        meta.extend(endpoint.zone.map(|zone| ("zone".to_owned(), zone)));
        let body = json!({
            "ID": id,
            "Name": name,
            "Address": endpoint.address.ip().to_string(),
            "Port": endpoint.address.port(),
            "Meta": meta,
            "Weights": { "Passing": endpoint.weight, "Warning": 1 },
            "Check": {
                "CheckID": id,
                "TTL": seconds(registry.lease),
                // It is ready when it registers.
                "Status": "passing",
                "DeregisterCriticalServiceAfter": seconds(api.forget_after),
            },
        });
        Registered { api, id, body, heartbeat: registry.heartbeat(), written: false }
    }

    async fn try_hold(&mut self, held: &Held) -> Result<Infallible> {
        // Before the await: a request that was dropped may still have arrived.
        self.written = true;
        self.api.put("/v1/agent/service/register".to_owned(), Some(&self.body)).await?;
        held.confirmed();
        loop {
            tokio::time::sleep(self.heartbeat).await;
            self.api.put(format!("/v1/agent/check/pass/{}", self.id), None).await?;
            held.confirmed();
        }
    }
}

impl Entry for Registered {
    async fn hold(&mut self, held: &Held) -> Error {
        match self.try_hold(held).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn remove(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.written) {
            return Ok(());
        }
        match self.api.put(format!("/v1/agent/service/deregister/{}", self.id), None).await {
            // It is gone already.
            Err(error) if error.code() == Code::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Stands in a path, so without what a path could misread.
fn id(name: &str, endpoint: &Endpoint) -> String {
    let address: String = endpoint
        .address
        .to_string()
        .chars()
        .filter(|c| !matches!(c, '[' | ']'))
        .map(|c| if c == ':' { '_' } else { c })
        .collect();
    format!("{name}-{address}")
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs().max(1))
}
