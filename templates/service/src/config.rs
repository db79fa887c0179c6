//! Settings, with defaults that work on a machine with nothing installed.

use chassis::data::DatabaseConfig;
use chassis::messaging::BrokerConfig;
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how HTTP is served.
    pub http: chassis::http::ServerConfig,
    /// The database of this service. Also `DATABASE_URL`.
    pub database: DatabaseConfig,
    /// The broker that all services share. Also `NATS_URL`.
    pub broker: BrokerConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: chassis::http::ServerConfig::default(),
            database: DatabaseConfig::url("sqlite://data/{{project-name}}.db?mode=rwc"),
            broker: BrokerConfig::at("embedded:data/broker"),
        }
    }
}
