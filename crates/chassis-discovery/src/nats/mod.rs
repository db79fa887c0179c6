//! Endpoints as entries of a NATS key-value bucket: a registry without a server
//! of its own, where NATS is there anyway.
//!
//! `service.protocol.address` holds the endpoint as JSON, written again as a
//! heartbeat. The bucket's maximum age is the lease: the server drops what was
//! not written again. It drops silently (only from 2.11 on could it say so), so
//! a reader counts the time since each entry's last heartbeat itself.

mod api;
mod leases;
mod register;
mod watch;

use std::sync::Arc;

use chassis_core::{BoxFuture, Result};

use self::api::NatsApi;
use self::register::Registered;
use crate::source::{Following, check_name};
use crate::{
    Endpoint, Lease, NatsConfig, Registrar, RegistryConfig, Resolver, Target, Updates, keeper,
};

/// Finds endpoints in a NATS bucket, and registers there. Cheap to clone.
#[derive(Clone)]
pub struct Nats {
    following: Arc<Following<NatsApi>>,
    api: Arc<NatsApi>,
    registry: RegistryConfig,
}

impl Nats {
    /// A client; it connects when it is used.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn new(config: &NatsConfig, registry: &RegistryConfig) -> Result<Nats> {
        config.validate()?;
        registry.validate()?;
        let api = Arc::new(NatsApi::new(config, registry)?);
        let following = Arc::new(Following::new(Arc::clone(&api), registry.grace));
        Ok(Nats { following, api, registry: registry.clone() })
    }
}

impl Resolver for Nats {
    fn watch(&self, target: &Target) -> Updates {
        self.following.watch(target)
    }
}

impl Registrar for Nats {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(async move {
            check_name(&target)?;
            let entry = Registered::new(Arc::clone(&self.api), &target, &endpoint)?;
            keeper::keep(target, entry, self.registry.timeout).await
        })
    }
}

/// The beginning of the keys of a target.
fn prefix(target: &Target) -> String {
    format!("{}.{}.", target.service, target.protocol)
}
