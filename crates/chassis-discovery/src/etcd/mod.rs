//! Endpoints as keys of etcd, each with a lease.
//!
//! `PREFIX/service/protocol/address` holds the endpoint as JSON. The key hangs on
//! a lease, so it goes when nobody renews it; a reader lists the prefix once and
//! then watches from the revision of that list, so nothing falls in between.
//!
//! etcd's JSON gateway is spoken to, not its gRPC: see decision 0008.
//! Source: <https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>.

mod api;
mod entries;
mod register;
mod watch;

use std::sync::Arc;

use chassis_core::{BoxFuture, Result};

use self::api::EtcdApi;
use self::register::Registered;
use crate::source::{Following, check_name};
use crate::{
    Endpoint, EtcdConfig, Lease, Registrar, RegistryConfig, Resolver, Target, Updates, keeper,
};

/// Finds endpoints in etcd, and registers there. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    following: Arc<Following<EtcdApi>>,
    api: Arc<EtcdApi>,
    registry: RegistryConfig,
}

impl Etcd {
    /// A client; it connects when it is used.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed.
    pub fn new(config: &EtcdConfig, registry: &RegistryConfig) -> Result<Etcd> {
        config.validate()?;
        registry.validate()?;
        let api = Arc::new(EtcdApi::new(config, registry)?);
        let following = Arc::new(Following::new(Arc::clone(&api), registry.grace));
        Ok(Etcd { following, api, registry: registry.clone() })
    }
}

impl Resolver for Etcd {
    fn watch(&self, target: &Target) -> Updates {
        self.following.watch(target)
    }
}

impl Registrar for Etcd {
    fn register(&self, target: Target, endpoint: Endpoint) -> BoxFuture<'_, Result<Lease>> {
        Box::pin(async move {
            check_name(&target)?;
            let entry = Registered::new(Arc::clone(&self.api), &self.registry, &target, &endpoint)?;
            keeper::keep(target, entry, self.registry.timeout).await
        })
    }
}
