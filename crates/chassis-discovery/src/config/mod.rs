//! Where endpoints come from, as a service's configuration says it.
//!
//! The settings of every backend are always there, also of those that a program
//! was built without: a configuration is then refused for its mode, with the
//! feature that is missing, and not for keys that nobody knows.

mod consul;
mod dns;
mod environment;
mod etcd;
mod kubernetes;
mod nats;
mod registry;
mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use chassis_core::{Error, Result};
use serde::{Deserialize, Serialize};

pub use self::consul::ConsulConfig;
pub use self::dns::DnsConfig;
pub use self::etcd::EtcdConfig;
pub use self::kubernetes::KubernetesConfig;
pub use self::nats::NatsConfig;
pub use self::registry::RegistryConfig;
pub use self::tls::TlsConfig;
use crate::dns::Location;
use crate::endpoint::MAX_WEIGHT;
use crate::limits::within;
use crate::{Endpoint, Selector, Target};

/// How this process finds the others, and where it makes itself known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiscoveryConfig {
    /// Where endpoints come from: `in-process`, `fixed`, `dns`, `etcd`, `nats`,
    /// `consul` or `kubernetes`.
    pub mode: Mode,
    /// Places by service and protocol: `services.greeter.http = ["10.0.0.7:8080"]`.
    /// They go before what the mode would find. With `fixed` they are all there
    /// is; with `dns` they may be host names and SRV names too. The environment
    /// may say `services__greeter__http__0=http://10.0.0.7:8080`, which goes
    /// before both.
    pub services: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Which endpoints of a service are called: `select.greeter = { version = "2" }`.
    /// `version`, `zone` and any label that its instances registered.
    pub select: BTreeMap<String, Selector>,
    /// What this process says about itself.
    pub advertise: AdvertiseConfig,
    /// What `etcd`, `nats`, `consul` and `kubernetes` have in common.
    pub registry: RegistryConfig,
    /// Only for the mode `dns`.
    pub dns: DnsConfig,
    /// Only for the mode `etcd`.
    pub etcd: EtcdConfig,
    /// Only for the mode `nats`.
    pub nats: NatsConfig,
    /// Only for the mode `consul`.
    pub consul: ConsulConfig,
    /// Only for the mode `kubernetes`.
    pub kubernetes: KubernetesConfig,
}

/// Where endpoints come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Services that run in this process find each other.
    #[default]
    InProcess,
    /// Only what `services` says.
    Fixed,
    /// DNS names, by pattern or by `services`.
    Dns,
    /// Keys with a lease in etcd.
    Etcd,
    /// Entries of a NATS key-value bucket.
    Nats,
    /// The catalogue of Consul.
    Consul,
    /// The EndpointSlices of Kubernetes, which registers by itself.
    Kubernetes,
}

/// What this process says about itself where it registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AdvertiseConfig {
    /// The IP address that others reach this process at. Empty: the one that it
    /// listens on; where it listens on all, the one that leads out of here.
    pub address: String,
    /// Its share of the calls in relation to other instances. 1 to 65535.
    pub weight: u32,
    /// Where it runs, such as an availability zone.
    pub zone: String,
    /// What else others may select by.
    pub labels: BTreeMap<String, String>,
}

impl Default for AdvertiseConfig {
    fn default() -> AdvertiseConfig {
        AdvertiseConfig {
            address: String::new(),
            weight: 1,
            zone: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

impl AdvertiseConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        within("discovery.advertise.weight", self.weight, 1..=MAX_WEIGHT)?;
        self.ip().map(drop)
    }

    /// The address to advertise, if one is set.
    pub(crate) fn ip(&self) -> Result<Option<IpAddr>> {
        if self.address.is_empty() {
            return Ok(None);
        }
        self.address.parse().map(Some).map_err(|_| {
            invalid(format!("discovery.advertise.address: `{}` is not an IP address", self.address))
        })
    }

    /// Puts what is said here on an endpoint.
    pub(crate) fn describe(&self, endpoint: Endpoint) -> Endpoint {
        let endpoint = endpoint.with_weight(self.weight).with_zone(&self.zone);
        self.labels
            .iter()
            .fold(endpoint, |endpoint, (name, value)| endpoint.with_label(name, value))
    }
}

impl DiscoveryConfig {
    /// The written places, read; what the environment says goes before.
    pub(crate) fn places(
        &self,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<BTreeMap<Target, Vec<Location>>> {
        let mut places = BTreeMap::new();
        for (service, protocols) in &self.services {
            for (protocol, entries) in protocols {
                let key = format!("discovery.services.{service}.{protocol}");
                let entries: Result<Vec<Location>> =
                    entries.iter().map(|entry| Location::parse(&key, entry)).collect();
                places.insert(Target::new(service, protocol), entries?);
            }
        }
        places.extend(environment::places(vars)?);
        Ok(places)
    }
}

pub(crate) fn invalid(message: String) -> Error {
    Error::invalid_argument("INVALID_CONFIG", message)
}
