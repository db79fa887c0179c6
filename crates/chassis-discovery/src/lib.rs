//! Who runs where, and which one to call.
//!
//! A service is called by its name. Two questions stand between the name and a
//! socket: which endpoints serve it now, and which of them gets this call. The
//! first is answered by a [`Resolver`]: written down ([`Fixed`]), in this process
//! ([`Registry`]), in DNS ([`Dns`]), or in a registry. It always answers with the
//! complete set and keeps the last good one when its source is down. The second is
//! answered by [`Balance`]: two by chance, the less loaded one of them, past open
//! circuits.
//!
//! The other direction is [`Registrar`]: a process that listens says so, last
//! after its start, and takes it back first at its end ([`Registration`]).
//!
//! Each registry is a feature, off by default, and a folder:
//!
//! | feature | folder | finds | registers |
//! |---|---|---|---|
//! | `etcd` | `etcd` | keys below a prefix | a key with a lease |
//! | `nats` | `nats` | entries of a key-value bucket | an entry with a heartbeat |
//! | `consul` | `consul` | healthy instances in the catalogue | a service with a TTL check |
//! | `kubernetes` | `kubernetes` | EndpointSlices | the platform does |
//! | `conformance` | `conformance` | the contract of all of them, as scenarios | |
//!
//! What it does not do: it never decides whether a failed call is tried again.
//! That needs to know whether the call is safe to repeat, which only the
//! transport's client does. [`provably_not_sent`] is the one thing that it can
//! say for sure.

mod balance;
mod chaos;
mod client_config;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "consul")]
mod consul;
mod discovery;
mod dns;
mod endpoint;
#[cfg(feature = "etcd")]
mod etcd;
mod fixed;
mod held_back;
// Each backend uses a part of it.
#[cfg(feature = "http-api")]
#[allow(dead_code)]
mod http;
#[cfg(any(feature = "consul", feature = "etcd", feature = "nats"))]
mod keeper;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod limits;
mod modes;
#[cfg(feature = "nats")]
mod nats;
mod observe;
mod registrar;
mod registration;
mod registry;
mod resolver;
mod selector;
mod source;
mod sync;
mod target;

pub use balance::{
    Affinity, AllOpen, Balance, BalanceSettings, NoEndpoints, ResponseFuture, Unreachable,
    provably_not_sent,
};
pub use chaos::ChaosConfig;
pub use client_config::{
    AdaptiveConfig, BalanceConfig, BreakerConfig, CacheConfig, CallRateConfig, ClientConfig,
    GrpcClientConfig, HedgeConfig, ThrottleConfig,
};
pub use config::{
    AdvertiseConfig, ConsulConfig, DiscoveryConfig, DnsConfig, EtcdConfig, KubernetesConfig, Mode,
    NatsConfig, RegistryConfig, TlsConfig,
};
#[cfg(feature = "consul")]
pub use consul::Consul;
pub use discovery::Discovery;
pub use dns::Dns;
pub use endpoint::{Endpoint, MAX_LABEL_BYTES, MAX_LABELS, MAX_WEIGHT};
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use fixed::Fixed;
pub use held_back::{Account, HoldBack, IfSent};
#[cfg(feature = "kubernetes")]
pub use kubernetes::Kubernetes;
#[cfg(feature = "nats")]
pub use nats::Nats;
pub use registrar::{Lease, Lost, Registrar};
pub use registration::Registration;
pub use registry::Registry;
pub use resolver::{Feed, MAX_ENDPOINTS, Resolver, Updates};
pub use selector::Selector;
pub use target::Target;
