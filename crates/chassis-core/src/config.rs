//! Settings from defaults, a file and the environment, each with its origin.
#![allow(missing_docs)]
use serde::{Deserialize, Serialize};
#[derive(Clone, Default)]
pub struct Secret(String);
impl Secret {
    pub fn new(t: impl Into<String>) -> Secret {
        Secret(t.into())
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Secret)
    }
}
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminConfig {
    pub host: std::net::IpAddr,
    pub port: u16,
}
impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig {
            host: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 9090,
        }
    }
}
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let t = String::deserialize(d)?;
        humantime::parse_duration(&t).map_err(D::Error::custom)
    }
}
