//! Settings, with defaults that work on a machine with nothing installed.

use chassis::data::DatabaseConfig;
use chassis::discovery::DiscoveryConfig;
use chassis::grpc::ServerConfig;
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how gRPC is served.
    pub grpc: ServerConfig,
    /// The database of this service.
    pub database: DatabaseConfig,
    /// Where this service makes itself known.
    pub discovery: DiscoveryConfig,
    /// Put the first pieces into an empty database.
    pub seed: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grpc: ServerConfig { port: 50052, ..ServerConfig::default() },
            database: DatabaseConfig::url("sqlite://data/inventory.db?mode=rwc"),
            discovery: DiscoveryConfig::default(),
            seed: true,
        }
    }
}
