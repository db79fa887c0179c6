//! How the agent is asked: its address, its token, the name of a target.

use std::time::Duration;

use chassis_core::{Result, Secret};
use hyper::Method;

use crate::http::{Answer, Api, Call};
use crate::{ConsulConfig, RegistryConfig, Target};

/// One agent.
pub(super) struct ConsulApi {
    api: Api,
    token: Secret,
    name: String,
    pub(super) datacenter: String,
    pub(super) wait: Duration,
    pub(super) max_stale: Duration,
    pub(super) forget_after: Duration,
}

impl ConsulApi {
    pub(super) fn new(config: &ConsulConfig, registry: &RegistryConfig) -> Result<ConsulApi> {
        let urls = std::slice::from_ref(&config.url);
        Ok(ConsulApi {
            api: Api::new("consul", "discovery.consul", urls, &config.tls, registry.timeout)?,
            token: config.token.clone(),
            name: config.name.clone(),
            datacenter: config.datacenter.clone(),
            wait: config.wait,
            max_stale: config.max_stale,
            forget_after: config.forget_after,
        })
    }

    /// The name that a target has in the catalogue.
    pub(super) fn name(&self, target: &Target) -> String {
        self.name.replace("{service}", &target.service).replace("{protocol}", &target.protocol)
    }

    pub(super) async fn get(&self, path: String, wait: Duration) -> Result<Answer> {
        let mut call = Call::new(Method::GET, path);
        call.wait = wait;
        self.call(call).await
    }

    pub(super) async fn put(&self, path: String, body: Option<&serde_json::Value>) -> Result<()> {
        let call = Call::new(Method::PUT, path);
        self.call(match body {
            Some(body) => call.json(body),
            None => call,
        })
        .await
        .map(drop)
    }

    async fn call(&self, call: Call) -> Result<Answer> {
        self.api
            .call(match self.token.is_empty() {
                true => call,
                false => call.header("x-consul-token", self.token.expose()),
            })
            .await
    }
}
