//! Settings, with defaults that work on a machine with nothing installed.

use chassis::Secret;
use chassis::data::DatabaseConfig;
use chassis::discovery::DiscoveryConfig;
use chassis::messaging::{BrokerConfig, ConsumerConfig};
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how HTTP is served.
    pub http: chassis::http::ServerConfig,
    /// The database of this service.
    pub database: DatabaseConfig,
    /// The broker that all services share.
    pub broker: BrokerConfig,
    /// How what others tell is heard.
    pub consumer: ConsumerConfig,
    /// Where this service makes itself known.
    pub discovery: DiscoveryConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: chassis::http::ServerConfig { port: 8086, ..Default::default() },
            database: DatabaseConfig {
                url: Secret::new("sqlite://data/notification.db?mode=rwc"),
                ..DatabaseConfig::default()
            },
            broker: BrokerConfig {
                url: Secret::new("embedded:data/broker"),
                ..BrokerConfig::default()
            },
            consumer: ConsumerConfig::default(),
            discovery: DiscoveryConfig::default(),
        }
    }
}
