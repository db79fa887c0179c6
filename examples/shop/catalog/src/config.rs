//! Settings, with defaults that work on a machine with nothing installed.

use std::time::Duration;

use chassis::core::config::duration;
use chassis::data::DatabaseConfig;
use chassis::discovery::DiscoveryConfig;
use serde::{Deserialize, Serialize};

/// What can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how HTTP is served.
    pub http: chassis::http::ServerConfig,
    /// Where and how gRPC is served.
    pub grpc: chassis::grpc::ServerConfig,
    /// The database of this service.
    pub database: DatabaseConfig,
    /// Where this service makes itself known.
    pub discovery: DiscoveryConfig,
    /// What is remembered between two reads of the database.
    pub cache: CacheConfig,
    /// Put the first products into an empty database.
    pub seed: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: chassis::http::ServerConfig { port: 8081, ..Default::default() },
            grpc: chassis::grpc::ServerConfig { port: 50051, ..Default::default() },
            database: DatabaseConfig::url("sqlite://data/catalog.db?mode=rwc"),
            discovery: DiscoveryConfig::default(),
            cache: CacheConfig::default(),
            seed: true,
        }
    }
}

/// Settings of the product cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Products that are remembered at most. 0 switches the cache off.
    pub capacity: usize,
    /// The age up to which a remembered product is shown; so long may a changed
    /// price stay unseen.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig { capacity: 10_000, max_age: Duration::from_secs(5) }
    }
}
