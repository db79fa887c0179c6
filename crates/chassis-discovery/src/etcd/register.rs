//! One key with a lease: granted, renewed, and written again if it was lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{EtcdApi, encode, number};
use crate::keeper::{Entry, Held};
use crate::{Endpoint, RegistryConfig, Target};

/// The entry of one endpoint.
pub(super) struct Registered {
    api: Arc<EtcdApi>,
    key: String,
    value: String,
    ttl: u64,
    heartbeat: Duration,
    /// The lease that the key hangs on, once there is one.
    lease: Option<i64>,
}

impl Registered {
    pub(super) fn new(
        api: Arc<EtcdApi>,
        registry: &RegistryConfig,
        target: &Target,
        endpoint: &Endpoint,
    ) -> Result<Registered> {
        Ok(Registered {
            key: encode(format!("{}{}", api.prefix(target), endpoint.address)),
            value: encode(endpoint.to_json()?),
            ttl: registry.lease.as_secs(),
            heartbeat: registry.heartbeat(),
            lease: None,
            api,
        })
    }

    async fn try_hold(&mut self, held: &Held) -> Result<Infallible> {
        let granted: Granted =
            self.api.post("/v3/lease/grant", json!({ "TTL": self.ttl.to_string() })).await?;
        // Noted before the next await: whoever drops us here still finds it.
        self.lease = Some(granted.id);
        self.put(granted.id).await?;
        held.confirmed();
        loop {
            tokio::time::sleep(self.heartbeat).await;
            let id = json!({ "ID": granted.id.to_string() });
            let alive: Streamed<Alive> = self.api.post("/v3/lease/keepalive", id).await?;
            // A lease that is gone has no time left.
            if alive.result.ttl <= 0 {
                return Err(Error::unavailable("LEASE_LOST", "etcd does not know the lease"));
            }
            self.put_if_absent(granted.id).await?;
            held.confirmed();
        }
    }

    fn put_request(&self, lease: i64) -> Value {
        json!({ "key": self.key, "value": self.value, "lease": lease.to_string() })
    }

    async fn put(&self, lease: i64) -> Result<()> {
        let _: Value = self.api.post("/v3/kv/put", self.put_request(lease)).await?;
        Ok(())
    }

    /// Somebody may have deleted the key without the lease. Written only then:
    /// each write wakes all who watch.
    async fn put_if_absent(&self, lease: i64) -> Result<()> {
        let transaction = json!({
            "compare": [{ "key": self.key, "target": "VERSION", "result": "EQUAL", "version": "0" }],
            "success": [{ "request_put": self.put_request(lease) }],
        });
        let _: Value = self.api.post("/v3/kv/txn", transaction).await?;
        Ok(())
    }
}

impl Entry for Registered {
    async fn hold(&mut self, held: &Held) -> Error {
        match self.try_hold(held).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Only what hangs on our lease goes: another process may have the key by now.
    async fn remove(&mut self) -> Result<()> {
        if let Some(lease) = self.lease.take() {
            let id = json!({ "ID": lease.to_string() });
            let _: Value = self.api.post("/v3/lease/revoke", id).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
}

#[derive(Deserialize)]
struct Streamed<T> {
    result: T,
}

#[derive(Deserialize)]
struct Alive {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
}
