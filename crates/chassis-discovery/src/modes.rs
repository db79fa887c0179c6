//! From the mode of a configuration to what finds and registers.
//!
//! A mode whose feature is not built in is refused by name, so that nobody looks
//! for a mistake in the settings.

use std::sync::Arc;

use chassis_core::Result;

use crate::{DiscoveryConfig, Mode, Registrar, Registry, Resolver};

/// What a mode stands for.
pub(crate) struct Parts {
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) registrar: Option<Arc<dyn Registrar>>,
    pub(crate) description: &'static str,
    /// Whether those who look are on other machines.
    pub(crate) remote: bool,
}

#[cfg(any(feature = "consul", feature = "etcd", feature = "nats"))]
fn both<T: Resolver + Registrar + Clone>(client: T, description: &'static str) -> Parts {
    Parts {
        resolver: Arc::new(client.clone()),
        registrar: Some(Arc::new(client)),
        description,
        remote: true,
    }
}

/// The registry of a mode; none for the modes that have none.
pub(crate) fn registry(config: &DiscoveryConfig) -> Result<Option<Parts>> {
    match config.mode {
        Mode::Fixed | Mode::Dns => Ok(None),
        Mode::InProcess => {
            let registry = Registry::process();
            Ok(Some(Parts {
                resolver: Arc::new(registry.clone()),
                registrar: Some(Arc::new(registry)),
                description: "in-process",
                remote: false,
            }))
        }
        Mode::Etcd => etcd(config).map(Some),
        Mode::Nats => nats(config).map(Some),
        Mode::Consul => consul(config).map(Some),
        Mode::Kubernetes => kubernetes(config).map(Some),
    }
}

#[cfg(feature = "etcd")]
fn etcd(config: &DiscoveryConfig) -> Result<Parts> {
    Ok(both(crate::Etcd::new(&config.etcd, &config.registry)?, "etcd"))
}

#[cfg(feature = "nats")]
fn nats(config: &DiscoveryConfig) -> Result<Parts> {
    Ok(both(crate::Nats::new(&config.nats, &config.registry)?, "nats"))
}

#[cfg(feature = "consul")]
fn consul(config: &DiscoveryConfig) -> Result<Parts> {
    Ok(both(crate::Consul::new(&config.consul, &config.registry)?, "consul"))
}

#[cfg(feature = "kubernetes")]
fn kubernetes(config: &DiscoveryConfig) -> Result<Parts> {
    Ok(Parts {
        resolver: Arc::new(crate::Kubernetes::new(&config.kubernetes, &config.registry)?),
        // The platform registers what is ready.
        registrar: None,
        description: "kubernetes",
        remote: true,
    })
}

macro_rules! not_built_in {
    ($($feature:literal $facade:literal $name:ident)*) => {
        $(#[cfg(not(feature = $feature))]
        fn $name(_: &DiscoveryConfig) -> Result<Parts> {
            Err(crate::config::invalid(
                concat!(
                    "discovery.mode is \"", $feature, "\", which this program was built without; \
                     turn on the feature \"", $feature, "\" of chassis-discovery, or \"",
                    $facade, "\" of chassis"
                )
                .to_owned(),
            ))
        })*
    };
}

not_built_in! {
    "etcd" "etcd" etcd
    "nats" "nats-discovery" nats
    "consul" "consul" consul
    "kubernetes" "kubernetes" kubernetes
}
