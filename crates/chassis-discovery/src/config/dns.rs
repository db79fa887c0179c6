//! How DNS is asked, and which name a target has there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::Target;
use crate::dns::Location;
use crate::limits::within;

/// How DNS is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Name servers as `address:port`. Empty: those of the system.
    pub servers: Vec<String>,
    /// The name of a target, with `{service}` and `{protocol}` filled in. One
    /// that begins with `_` is an SRV name, such as `_{protocol}._tcp.{service}`.
    pub name: String,
    /// The port of each protocol, for names that are not SRV names.
    pub ports: BTreeMap<String, u16>,
    /// An answer is used at least this long, whatever its TTL. 10ms to 1h.
    #[serde(with = "duration")]
    pub min_ttl: Duration,
    /// An answer is used at most this long, whatever its TTL. 10ms to 1h.
    #[serde(with = "duration")]
    pub max_ttl: Duration,
    /// How long one query may take. 10ms to 1m.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> DnsConfig {
        DnsConfig {
            servers: Vec::new(),
            name: "{service}".to_owned(),
            ports: BTreeMap::from([("http".to_owned(), 8080), ("grpc".to_owned(), 50051)]),
            // A second is what a restarted pod is worth; more often is noise.
            min_ttl: Duration::from_secs(1),
            // A minute is the longest that a moved service should stay unseen.
            max_ttl: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
        }
    }
}

impl DnsConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let (shortest, hour) = (Duration::from_millis(10), Duration::from_secs(3600));
        within("discovery.dns.min_ttl", self.min_ttl, shortest..=hour)?;
        within("discovery.dns.max_ttl", self.max_ttl, self.min_ttl..=hour)?;
        let minute = Duration::from_secs(60);
        within("discovery.dns.timeout", self.timeout, shortest..=minute)
    }

    pub(crate) fn server_addresses(&self) -> Result<Vec<SocketAddr>> {
        self.servers
            .iter()
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::invalid_argument(
                        "INVALID_CONFIG",
                        format!("discovery.dns.servers: `{text}` is not `address:port`"),
                    )
                })
            })
            .collect()
    }

    /// Where the pattern says that a target is.
    pub(crate) fn place(&self, target: &Target) -> Result<Location> {
        let name =
            self.name.replace("{service}", &target.service).replace("{protocol}", &target.protocol);
        if name.starts_with('_') {
            return Location::parse("discovery.dns.name", &name);
        }
        let Some(port) = self.ports.get(&target.protocol) else {
            return Err(Error::invalid_argument(
                "INVALID_CONFIG",
                format!("discovery.dns.ports has no port for `{}`", target.protocol),
            ));
        };
        Location::parse("discovery.dns.name", &format!("{name}:{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_gives_the_place() {
        let mut config = DnsConfig::default();
        let target = Target::new("greeter", "grpc");
        let place = |config: &DnsConfig| config.place(&target).unwrap();
        assert_eq!(place(&config), Location::Host { name: "greeter".into(), port: 50051 });
        config.name = "{service}.prod.svc".into();
        assert_eq!(place(&config), Location::Host { name: "greeter.prod.svc".into(), port: 50051 });
        config.name = "_{protocol}._tcp.{service}.prod".into();
        assert_eq!(place(&config), Location::Srv("_grpc._tcp.greeter.prod".into()));
    }

    #[test]
    fn a_bad_setting_is_named_with_what_is_allowed() {
        let config = DnsConfig { min_ttl: Duration::ZERO, ..DnsConfig::default() };
        let message = config.validate().unwrap_err().message().to_owned();
        assert!(message.contains("discovery.dns.min_ttl"), "{message}");
        assert!(message.contains("10ms"), "{message}");

        let error = DnsConfig::default().place(&Target::new("greeter", "smtp")).unwrap_err();
        assert!(error.message().contains("discovery.dns.ports"));
    }
}
