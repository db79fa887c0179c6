//! Settings, with defaults that work on a machine with nothing installed.

use std::time::Duration;

use chassis::core::config::duration;
use chassis::discovery::{ClientConfig, DiscoveryConfig};
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how HTTP is served.
    pub http: chassis::http::ServerConfig,
    /// How the services behind are found.
    pub discovery: DiscoveryConfig,
    /// How they are called.
    pub client: ClientConfig,
    /// How long an answer waits for a part that it can do without.
    #[serde(with = "duration")]
    pub optional_part_within: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: chassis::http::ServerConfig { port: 8080, ..Default::default() },
            discovery: DiscoveryConfig::default(),
            client: ClientConfig::default(),
            optional_part_within: Duration::from_millis(800),
        }
    }
}
