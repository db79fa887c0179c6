//! The registry in the process keeps the contract, as far as it can go away.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use chassis_discovery::conformance::{Connection, Place, SCENARIOS, run_all};
use chassis_discovery::{Discovery, DiscoveryConfig, Mode, Registry, RegistryConfig};

struct InProcess(Registry);

impl Place for InProcess {
    fn connect(&self) -> Result<Connection> {
        let registry = self.0.clone();
        Ok(Connection { resolver: Arc::new(registry.clone()), registrar: Arc::new(registry) })
    }
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn lease(&self) -> Option<Duration> {
        None
    }
    fn grace(&self) -> Duration {
        Duration::ZERO
    }
    fn goes_away(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn the_registry_in_the_process_passes_all_scenarios() {
    assert_eq!(run_all(InProcess(Registry::new())).await, Ok(SCENARIOS.len()));
}

#[test]
fn what_is_out_of_range_is_refused_at_start() {
    let mut config = DiscoveryConfig { mode: Mode::Consul, ..DiscoveryConfig::default() };
    config.registry = RegistryConfig { lease: Duration::ZERO, ..RegistryConfig::default() };
    let message = Discovery::new(&config).unwrap_err().message().to_owned();
    assert_eq!(message, "discovery.registry.lease is 0ns, allowed is 2s to 600s");
}

#[cfg(not(feature = "etcd"))]
#[test]
fn a_mode_that_is_not_built_in_names_its_feature() {
    let config = DiscoveryConfig { mode: Mode::Etcd, ..DiscoveryConfig::default() };
    let message = Discovery::new(&config).unwrap_err().message().to_owned();
    assert!(message.contains("turn on the feature \"etcd\""), "{message}");
}
