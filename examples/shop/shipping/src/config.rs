//! Settings, with defaults that work on a machine with nothing installed.

use chassis::Secret;
use chassis::data::DatabaseConfig;
use chassis::messaging::outbox::OutboxConfig;
use chassis::messaging::{BrokerConfig, ConsumerConfig};
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The database of this service.
    pub database: DatabaseConfig,
    /// The broker that all services share.
    pub broker: BrokerConfig,
    /// How what is told leaves the database.
    pub outbox: OutboxConfig,
    /// How what others tell is heard.
    pub consumer: ConsumerConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            database: DatabaseConfig {
                url: Secret::new("sqlite://data/shipping.db?mode=rwc"),
                ..DatabaseConfig::default()
            },
            broker: BrokerConfig {
                url: Secret::new("embedded:data/broker"),
                ..BrokerConfig::default()
            },
            outbox: OutboxConfig::default(),
            consumer: ConsumerConfig::default(),
        }
    }
}
