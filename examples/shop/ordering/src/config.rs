//! Settings, with defaults that work on a machine with nothing installed.

use std::time::Duration;

use chassis::Secret;
use chassis::core::config::duration;
use chassis::data::DatabaseConfig;
use chassis::discovery::{ChaosConfig, ClientConfig, DiscoveryConfig};
use chassis::messaging::outbox::OutboxConfig;
use chassis::messaging::saga::SagaConfig;
use chassis::messaging::{BrokerConfig, ConsumerConfig};
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
    /// The broker that all services share.
    pub broker: BrokerConfig,
    /// How what is told leaves the database.
    pub outbox: OutboxConfig,
    /// How what others tell is heard.
    pub consumer: ConsumerConfig,
    /// How patiently a checkout is carried on.
    pub saga: SagaConfig,
    /// How the others are found, and where this service makes itself known.
    pub discovery: DiscoveryConfig,
    /// How the catalog is called.
    pub catalog: ClientConfig,
    /// How the inventory is called.
    pub inventory: ClientConfig,
    /// How the payment service is called.
    pub payment: ClientConfig,
    /// Whether faults may be put into these calls.
    pub chaos: ChaosConfig,
    /// How long a confirmed order may wait for its parcel before a person is asked.
    #[serde(with = "duration")]
    pub parcel_within: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            http: chassis::http::ServerConfig { port: 8084, ..Default::default() },
            grpc: chassis::grpc::ServerConfig { port: 50054, ..Default::default() },
            database: DatabaseConfig {
                url: Secret::new("sqlite://data/ordering.db?mode=rwc"),
                ..DatabaseConfig::default()
            },
            broker: BrokerConfig {
                url: Secret::new("embedded:data/broker"),
                ..BrokerConfig::default()
            },
            outbox: OutboxConfig::default(),
            consumer: ConsumerConfig::default(),
            // A checkout outlasts the restart of any service that it needs: what is undone
            // after three seconds is an order that a customer wanted.
            saga: SagaConfig {
                attempts: 20,
                max_backoff: Duration::from_secs(5),
                ..SagaConfig::default()
            },
            discovery: DiscoveryConfig::default(),
            catalog: ClientConfig::default(),
            inventory: ClientConfig::default(),
            // The provider behind it is slow at times, and a charge is repeated safely.
            payment: ClientConfig {
                timeout: Duration::from_secs(15),
                attempt_timeout: Duration::from_secs(7),
                ..ClientConfig::default()
            },
            chaos: ChaosConfig::default(),
            parcel_within: Duration::from_secs(24 * 60 * 60),
        }
    }
}
