//! Endpoints from the EndpointSlices of Kubernetes.
//!
//! The platform registers and deregisters by itself, from the readiness of each
//! pod; this only reads. A Service has several slices when it is large, and an
//! address may stand in two of them while it moves, so they are kept one by one
//! and merged. A reader lists once, then watches from there; bookmarks keep its
//! place current, and when the place is too old (410 Gone) it lists again.
//!
//! The HTTP API is spoken to directly: see decision 0008.
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/>,
//! `concepts/services-networking/endpoint-slices`.

mod api;
mod event;
mod slices;
mod watch;

use std::sync::Arc;

use chassis_core::Result;

use self::api::KubernetesApi;
use crate::source::Following;
use crate::{KubernetesConfig, RegistryConfig, Resolver, Target, Updates};

/// Finds endpoints in Kubernetes. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    following: Arc<Following<KubernetesApi>>,
}

impl Kubernetes {
    /// A client; it connects when it is used.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key and what is allowed, or what a pod's
    /// environment lacks.
    pub fn new(config: &KubernetesConfig, registry: &RegistryConfig) -> Result<Kubernetes> {
        config.validate()?;
        registry.validate()?;
        let api = Arc::new(KubernetesApi::new(config, registry)?);
        Ok(Kubernetes { following: Arc::new(Following::new(api, registry.grace)) })
    }
}

impl Resolver for Kubernetes {
    fn watch(&self, target: &Target) -> Updates {
        self.following.watch(target)
    }
}
