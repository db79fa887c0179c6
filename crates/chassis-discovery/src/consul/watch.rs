//! Blocking queries, one after the other.

use std::time::Duration;

use chassis_core::{Error, Result};
use hyper::HeaderMap;
use tokio::time::Instant;

use super::api::ConsulApi;
use super::index::Index;
use super::instance::Instance;
use crate::Target;
use crate::source::{Sink, Source, check_name};

impl Source for ConsulApi {
    async fn follow(&self, target: &Target, sink: &Sink) -> Result<()> {
        check_name(target)?;
        let name = self.name(target);
        let mut index = Index::default();
        loop {
            let mut path = format!("/v1/health/service/{name}?passing=true");
            if !self.max_stale.is_zero() {
                path.push_str("&stale");
            }
            if !self.datacenter.is_empty() {
                path.extend(["&dc=", &self.datacenter]);
            }
            let mut wait = Duration::ZERO;
            if let Some(known) = index.known() {
                path.push_str(&format!("&index={known}&wait={}ms", self.wait.as_millis()));
                // The agent adds up to a sixteenth, so that not all end at once.
                wait = self.wait + self.wait / 16;
            }
            let asked = Instant::now();
            let answer = self.get(path, wait).await?;
            let said = number(answer.headers(), "x-consul-index").unwrap_or(0);
            trusted(answer.headers(), self.max_stale)?;
            let instances: Vec<Instance> = answer.json().await?;
            sink.publish(instances.into_iter().filter_map(Instance::endpoint));
            let pause = index.answered(said, asked.elapsed());
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether the server that answered was in touch with its leader. What it does
/// not say is taken as well: an agent of a single server says nothing.
fn trusted(headers: &HeaderMap, max_stale: Duration) -> Result<()> {
    let stale = |problem: &'static str| Err(Error::unavailable("CONSUL_STALE", problem));
    if headers.get("x-consul-knownleader").is_some_and(|value| value == "false") {
        return stale("consul has no leader");
    }
    let contact = Duration::from_millis(number(headers, "x-consul-lastcontact").unwrap_or(0));
    if !max_stale.is_zero() && contact > max_stale {
        return stale("consul's answer is older than discovery.consul.max_stale");
    }
    Ok(())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
