//! Where the Consul agent is, and under which name a target stands there.

use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::{Result, Secret};
use serde::{Deserialize, Serialize};

use super::{TlsConfig, invalid};
use crate::limits::within;

/// Settings for the mode `consul`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsulConfig {
    /// The agent on this machine, or a server.
    pub url: String,
    /// Its ACL token, if it asks for one.
    pub token: Secret,
    /// The data centre to look in. Empty: the agent's own.
    pub datacenter: String,
    /// The name of a target, with `{service}` and `{protocol}` filled in.
    pub name: String,
    /// How long the agent may hold a question until something changes. 1s to 10m.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// An answer by a server that has not heard from its leader for longer is not
    /// believed. 0s (only the leader answers) to 10m.
    #[serde(with = "duration")]
    pub max_stale: Duration,
    /// An instance that says nothing for this long is not only not found any
    /// more, but forgotten. 1m, Consul's least, to 24h.
    #[serde(with = "duration")]
    pub forget_after: Duration,
    /// For `https://`.
    pub tls: TlsConfig,
}

impl Default for ConsulConfig {
    fn default() -> ConsulConfig {
        ConsulConfig {
            url: "http://127.0.0.1:8500".to_owned(),
            token: Secret::default(),
            datacenter: String::new(),
            name: "{service}-{protocol}".to_owned(),
            wait: Duration::from_secs(60),
            max_stale: Duration::from_secs(10),
            forget_after: Duration::from_secs(60),
            tls: TlsConfig::default(),
        }
    }
}

impl ConsulConfig {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let second = Duration::from_secs(1);
        within("discovery.consul.wait", self.wait, second..=600 * second)?;
        within("discovery.consul.max_stale", self.max_stale, Duration::ZERO..=600 * second)?;
        let day = 24 * 3600 * second;
        within("discovery.consul.forget_after", self.forget_after, 60 * second..=day)?;
        if self.name.contains("{service}") && self.name.contains("{protocol}") {
            return Ok(());
        }
        Err(invalid(format!(
            "discovery.consul.name is `{}`, it must hold `{{service}}` and `{{protocol}}`: \
             two protocols of a service are two sets of endpoints",
            self.name
        )))
    }
}
