//! The discovery of one process: which resolver, which registrar.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use chassis_core::{Env, Error, Result};

use crate::config::{AdvertiseConfig, DiscoveryConfig, Mode};
use crate::dns::Location;
use crate::modes::{self, Parts};
use crate::observe::Observed;
use crate::{Dns, Fixed, Registrar, Registration, Registry, Resolver, Selector, Target, Updates};

/// What clients look endpoints up with, and where a service registers. Cheap to
/// clone.
#[derive(Clone)]
pub struct Discovery {
    resolver: Arc<Selecting>,
    registrar: Option<Arc<dyn Registrar>>,
    description: &'static str,
    advertise: AdvertiseConfig,
    remote: bool,
}

impl Discovery {
    /// The discovery that a configuration describes, and the environment where
    /// it names services (`services__greeter__http__0=http://10.0.0.7:80`).
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the key, or the variable, and what is allowed.
    pub fn new(config: &DiscoveryConfig) -> Result<Discovery> {
        Discovery::with_environment(config, std::env::vars_os())
    }

    /// The same with the given variables in place of the environment's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_environment(
        config: &DiscoveryConfig,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Discovery> {
        config.registry.validate()?;
        config.advertise.validate()?;
        let places = config.places(vars)?;
        let parts = if config.mode == Mode::Dns {
            Parts {
                resolver: Arc::new(Dns::with_places(&config.dns, places)?),
                // Who starts the process puts it into DNS.
                registrar: None,
                description: "dns",
                remote: true,
            }
        } else {
            let fixed = fixed(places)?;
            match modes::registry(config)? {
                Some(parts) => Parts {
                    resolver: Arc::new(FixedFirst { fixed, rest: parts.resolver }),
                    ..parts
                },
                None => Parts {
                    resolver: Arc::new(fixed),
                    registrar: None,
                    description: "fixed",
                    remote: true,
                },
            }
        };
        let mut discovery = Discovery::of(parts, config.select.clone());
        discovery.advertise = config.advertise.clone();
        Ok(discovery)
    }

    /// Discovery in a registry of its own: for tests, and for several systems
    /// in one process.
    pub fn in_process(registry: Registry) -> Discovery {
        let parts = Parts {
            resolver: Arc::new(registry.clone()),
            registrar: Some(Arc::new(registry)),
            description: "in-process",
            remote: false,
        };
        Discovery::of(parts, BTreeMap::new())
    }

    /// Discovery by a resolver of one's own, where others do the registering.
    pub fn with_resolver(resolver: impl Resolver) -> Discovery {
        let parts = Parts {
            resolver: Arc::new(resolver),
            registrar: None,
            description: "custom",
            remote: true,
        };
        Discovery::of(parts, BTreeMap::new())
    }

    fn of(parts: Parts, select: BTreeMap<String, Selector>) -> Discovery {
        let observed = Arc::default();
        Discovery {
            resolver: Arc::new(Selecting { inner: parts.resolver, select, observed }),
            registrar: parts.registrar,
            description: parts.description,
            advertise: AdvertiseConfig::default(),
            remote: parts.remote,
        }
    }

    /// Makes [`Discovery::registration`] register there.
    pub fn with_registrar(mut self, registrar: impl Registrar) -> Discovery {
        self.registrar = Some(Arc::new(registrar));
        self
    }

    /// What finds endpoints. It selects by the configuration and by the target.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        self.resolver.clone()
    }

    /// The component that registers what this process listens on. It belongs at
    /// the end of the list: registered last, deregistered first. It also
    /// [shows](Self::show) the discovery.
    pub fn registration(&self) -> Registration {
        Registration::new(
            self.registrar.clone(),
            self.description,
            self.advertise.clone(),
            self.remote,
            Arc::clone(&self.resolver.observed),
        )
    }

    /// The zone that this process registers with, if one is set.
    pub fn zone(&self) -> Option<&str> {
        Some(self.advertise.zone.as_str()).filter(|zone| !zone.is_empty())
    }

    /// Shows it in a process: a probe `discovery` that degrades the health while a
    /// source is away or a registration is lost, the metrics
    /// `discovery_stale_seconds`, `discovery_endpoints` and
    /// `discovery_unregistered_seconds`, and the operation `discovery`. For
    /// processes that have no [`registration`](Self::registration), which does it.
    pub fn show(&self, env: &Env) {
        self.resolver.observed.show(env);
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("mode", &self.description).finish_non_exhaustive()
    }
}

/// Asks for all endpoints of a target and gives those that are selected, so that
/// a source is asked once, however many select.
struct Selecting {
    inner: Arc<dyn Resolver>,
    select: BTreeMap<String, Selector>,
    observed: Arc<Observed>,
}

impl Resolver for Selecting {
    fn watch(&self, target: &Target) -> Updates {
        let all = target.unselected();
        let updates = self.inner.watch(&all);
        self.observed.looks_for(&all, &updates);
        let configured = self.select.get(&target.service).cloned().unwrap_or_default();
        updates.select(&configured.and(&target.selector))
    }
}

/// What was written down goes before what registered itself.
struct FixedFirst {
    fixed: Fixed,
    rest: Arc<dyn Resolver>,
}

impl Resolver for FixedFirst {
    fn watch(&self, target: &Target) -> Updates {
        match self.fixed.get(target) {
            Some(endpoints) => Updates::fixed(endpoints.iter().cloned()),
            None => self.rest.watch(target),
        }
    }
}

/// The written places as a table, which holds addresses only.
fn fixed(places: BTreeMap<Target, Vec<Location>>) -> Result<Fixed> {
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
    Ok(fixed)
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

    #[tokio::test]
    async fn the_environment_goes_before_the_configuration() {
        let vars = [("services__greeter__http__0".into(), "http://10.0.0.9:81".into())];
        for mode in [Mode::InProcess, Mode::Fixed] {
            let config = config(mode, "10.0.0.7:80");
            let discovery = Discovery::with_environment(&config, vars.clone()).unwrap();
            let set = discovery.resolver().watch(&Target::new("greeter", "http")).current();
            assert_eq!(*set, [Endpoint::new(([10, 0, 0, 9], 81).into())]);
        }
    }

    #[tokio::test]
    async fn clients_are_in_the_zone_that_the_process_registers_with() {
        let mut config = DiscoveryConfig::default();
        let mut client = crate::ClientConfig::default();
        let zone = |config: &DiscoveryConfig, client: &crate::ClientConfig| {
            client.balance_settings(&Discovery::new(config).unwrap()).zone
        };
        assert_eq!(zone(&config, &client), None);
        config.advertise.zone = "a".into();
        assert_eq!(zone(&config, &client).as_deref(), Some("a"));
        client.balance.zone = "b".into();
        assert_eq!(zone(&config, &client).as_deref(), Some("b"), "its own goes before");
    }

    #[tokio::test]
    async fn configuration_and_target_select() {
        let registry = Registry::new();
        let mut leases = Vec::new();
        for (port, version, zone) in [(1, "1", "a"), (2, "2", "a"), (3, "2", "b")] {
            let endpoint =
                Endpoint::new(([127, 0, 0, 1], port).into()).with_version(version).with_zone(zone);
            let target = Target::new("greeter", "http");
            leases.push(registry.register(target, endpoint).await.unwrap());
        }
        let discovery = Discovery::in_process(registry);
        let ports = |discovery: &Discovery, target: Target| -> Vec<u16> {
            let set = discovery.resolver().watch(&target).current();
            set.iter().map(|endpoint| endpoint.address.port()).collect()
        };
        let target = || Target::new("greeter", "http");
        assert_eq!(ports(&discovery, target()), [1, 2, 3]);
        assert_eq!(ports(&discovery, target().version("2")), [2, 3]);
        let parts = Parts {
            resolver: discovery.resolver(),
            registrar: None,
            description: "test",
            remote: false,
        };
        let select = BTreeMap::from([("greeter".into(), Selector::default().with("version", "2"))]);
        let selecting = Discovery::of(parts, select);
        assert_eq!(ports(&selecting, target()), [2, 3]);
        assert_eq!(ports(&selecting, target().zone("b")), [3]);
        assert_eq!(ports(&selecting, target().version("1")), [1], "the target decides");
    }
}
