//! The discovery of one process: which resolver, which registrar.

use std::fmt;
use std::sync::Arc;

use chassis_core::{Error, Result};

use crate::config::{DiscoveryConfig, Mode};
use crate::dns::Location;
use crate::{Dns, Fixed, Registrar, Registration, Registry, Resolver, Target, Updates};

/// What clients look endpoints up with, and where a service registers. Cheap to
/// clone.
#[derive(Clone)]
pub struct Discovery {
    resolver: Arc<dyn Resolver>,
    registrar: Option<Arc<dyn Registrar>>,
    description: &'static str,
}

impl Discovery {
    /// The discovery that a configuration describes.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key.
    pub fn new(config: &DiscoveryConfig) -> Result<Discovery> {
        let places = config.places()?;
        if config.mode == Mode::Dns {
            return Ok(Discovery {
                resolver: Arc::new(Dns::with_places(&config.dns, places)?),
                // Who starts the process puts it into DNS.
                registrar: None,
                description: "dns",
            });
        }
        let mut fixed = Fixed::new();
        for (target, places) in places {
            let addresses: Result<Vec<_>> = places
                .into_iter()
                .map(|place| match place {
                    Location::Address(address) => Ok(address),
                    _ => Err(needs_dns(&target)),
                })
                .collect();
            fixed = fixed.with(target, addresses?);
        }
        Ok(match config.mode {
            Mode::Fixed => {
                Discovery { resolver: Arc::new(fixed), registrar: None, description: "fixed" }
            }
            Mode::InProcess | Mode::Dns => {
                let registry = Registry::process();
                Discovery {
                    resolver: Arc::new(FixedFirst { fixed, rest: registry.clone() }),
                    registrar: Some(Arc::new(registry)),
                    description: "in-process",
                }
            }
        })
    }

    /// Discovery in a registry of its own: for tests, and for several systems
    /// in one process.
    pub fn in_process(registry: Registry) -> Discovery {
        Discovery {
            resolver: Arc::new(registry.clone()),
            registrar: Some(Arc::new(registry)),
            description: "in-process",
        }
    }

    /// Discovery by a resolver of one's own, where others do the registering.
    pub fn with_resolver(resolver: impl Resolver) -> Discovery {
        Discovery { resolver: Arc::new(resolver), registrar: None, description: "custom" }
    }

    /// Makes [`Discovery::registration`] register there.
    pub fn with_registrar(mut self, registrar: impl Registrar) -> Discovery {
        self.registrar = Some(Arc::new(registrar));
        self
    }

    /// What finds endpoints.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::clone(&self.resolver)
    }

    /// The component that registers what this process listens on. It belongs at
    /// the end of the list: registered last, deregistered first.
    pub fn registration(&self) -> Registration {
        Registration::new(self.registrar.clone(), self.description)
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("mode", &self.description).finish_non_exhaustive()
    }
}

/// What was written down goes before what registered itself.
struct FixedFirst {
    fixed: Fixed,
    rest: Registry,
}

impl Resolver for FixedFirst {
    fn watch(&self, target: &Target) -> Updates {
        match self.fixed.get(target) {
            Some(endpoints) => Updates::fixed(endpoints.iter().cloned()),
            None => self.rest.watch(target),
        }
    }
}

fn needs_dns(target: &Target) -> Error {
    Error::invalid_argument(
        "INVALID_CONFIG",
        format!(
            "discovery.services.{}.{}: a host name needs discovery.mode = \"dns\"; \
             otherwise write `address:port`",
            target.service, target.protocol
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn config(mode: Mode, entry: &str) -> DiscoveryConfig {
        let mut config = DiscoveryConfig { mode, ..DiscoveryConfig::default() };
        config.services.insert("greeter".into(), [("http".into(), vec![entry.into()])].into());
        config
    }

    #[tokio::test]
    async fn what_is_written_down_goes_first() {
        let target = Target::new("greeter", "http");
        for mode in [Mode::InProcess, Mode::Fixed] {
            let discovery = Discovery::new(&config(mode, "10.0.0.7:80")).unwrap();
            let set = discovery.resolver().watch(&target).current();
            assert_eq!(&set[..], &[Endpoint::new(([10, 0, 0, 7], 80).into())]);
        }
    }

    #[tokio::test]
    async fn a_host_name_without_dns_is_refused() {
        for mode in [Mode::InProcess, Mode::Fixed] {
            let error = Discovery::new(&config(mode, "greeter:80")).unwrap_err();
            let message = error.message();
            assert!(message.contains("discovery.services.greeter.http"), "{message}");
            assert!(message.contains("dns"), "{message}");
        }
    }

    #[tokio::test]
    async fn in_process_is_the_default() {
        let discovery = Discovery::new(&DiscoveryConfig::default()).unwrap();
        let target = Target::new("default-mode", "http");
        let lease = Registry::process()
            .register(target.clone(), Endpoint::new(([127, 0, 0, 1], 1).into()))
            .await
            .unwrap();
        assert_eq!(discovery.resolver().watch(&target).current().len(), 1);
        drop(lease);
    }
}
