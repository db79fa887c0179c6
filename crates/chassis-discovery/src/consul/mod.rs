//! Endpoints in the catalogue of Consul.
//!
//! A reader asks for the healthy instances of a service and says what it knows
//! already; the agent holds the question until something changes (a blocking
//! query). An instance registers with a check that it must pass again and again.
//!
//! Source: <https://developer.hashicorp.com/consul/api-docs/features/blocking>,
//! `api-docs/health`, `api-docs/agent/service`, `api-docs/agent/check`.

mod api;
mod index;
mod instance;
mod register;
mod watch;

use std::sync::Arc;

use chassis_core::{BoxFuture, Result};

use self::api::ConsulApi;
use self::register::Registered;
use crate::source::{Following, check_name};
use crate::{
    ConsulConfig, Endpoint, Lease, Registrar, RegistryConfig, Resolver, Target, Updates, keeper,
};

/// Finds endpoints in Consul, and registers there. Cheap to clone.
#[derive(Clone)]
pub struct Consul {
    following: Arc<Following<ConsulApi>>,
    api: Arc<ConsulApi>,
    registry: RegistryConfig,
}

impl Consul {
    /// A client; it connects when it is used.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn new(config: &ConsulConfig, registry: &RegistryConfig) -> Result<Consul> {
        config.validate()?;
        registry.validate()?;
        let api = Arc::new(ConsulApi::new(config, registry)?);
        let following = Arc::new(Following::new(Arc::clone(&api), registry.grace));
        Ok(Consul { following, api, registry: registry.clone() })
    }
}

impl Resolver for Consul {
    fn watch(&self, target: &Target) -> Updates {
        self.following.watch(target)
    }
}

impl Registrar for Consul {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(async move {
            check_name(&target)?;
            let entry = Registered::new(Arc::clone(&self.api), &self.registry, &target, endpoint);
            keeper::keep(target, entry, self.registry.timeout).await
        })
    }
}
