//! The parts of the workload as an app: what any service of the chassis looks like.
//!
//! The waits are short, so that two minutes hold many crashes and take-overs: leases of
//! two seconds, an ack wait of three, pauses of half a second.

use std::time::Duration;

use chassis::data::{DatabaseConfig, Db};
use chassis::messaging::consumer::{InTurnConfig, PauseConfig};
use chassis::messaging::inbox::Inbox;
use chassis::messaging::outbox::{Outbox, OutboxConfig};
use chassis::messaging::saga::{SagaConfig, Sagas};
use chassis::messaging::{Broker, BrokerConfig, Consumer, ConsumerConfig};
use chassis::{App, Result};
use serde::{Deserialize, Serialize};

use super::handlers::{BUYER, DESK, Group, LEDGER, MIRROR, answered, asked, changed, poison};
use super::load::{Load, LoadConfig};
use super::purchase::{self, Purchase};
use super::schema;
use super::troubles::Troubles;
use super::work::Work;

/// How long a saga waits for a reply.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The settings of the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Its database.
    pub database: DatabaseConfig,
    /// Its broker.
    pub broker: BrokerConfig,
    /// Its relay.
    pub outbox: OutboxConfig,
    /// Its handlers.
    pub consumer: ConsumerConfig,
    /// Its sagas.
    pub saga: SagaConfig,
    /// The version of the saga that it begins; it goes on with older ones.
    pub saga_version: u32,
    /// What it does.
    pub load: LoadConfig,
}

impl Default for Config {
    fn default() -> Config {
        let (lease, most) = (Duration::from_secs(2), Duration::from_secs(2));
        Config {
            database: DatabaseConfig { max_connections: 20, ..DatabaseConfig::default() },
            // Small, so that a message over the limit is cheap to make.
            broker: BrokerConfig { max_message_bytes: 32 * 1024, ..BrokerConfig::default() },
            outbox: OutboxConfig {
                lease,
                max_attempts: 3,
                max_backoff: most,
                ..OutboxConfig::default()
            },
            consumer: ConsumerConfig {
                concurrency: 4,
                ack_wait: Duration::from_secs(3),
                handler_timeout: Duration::from_secs(10),
                // Forty tries in about fifteen seconds: longer than a database is away,
                // shorter than the auditor waits for the poison to be buried.
                max_attempts: 40,
                retry_delay: Duration::from_millis(100),
                max_retry_delay: Duration::from_millis(500),
                // A database that is away trips it, and so does poison at the end, when there is
                // little else; then each try takes a pause.
                pause: PauseConfig {
                    first: Duration::from_millis(500),
                    longest: Duration::from_millis(500),
                    ..PauseConfig::default()
                },
                // Nothing here leaves a gap: who gives a message up says so. What the broker lost
                // takes its time to come again, on a busy machine.
                in_turn: InTurnConfig {
                    settle: Duration::from_secs(20),
                    ..InTurnConfig::default()
                },
                ..ConsumerConfig::default()
            },
            saga: SagaConfig {
                lease,
                // A step that hangs is over while the auditor waits.
                step_timeout: Duration::from_secs(3),
                attempts: 50,
                persistent_attempts: 1000,
                max_backoff: most,
                ..SagaConfig::default()
            },
            saga_version: 1,
            load: LoadConfig::default(),
        }
    }
}

/// The service on its database and broker.
pub struct Service {
    /// What the business code needs.
    pub work: Work,
    /// The purchases.
    pub sagas: Sagas<Purchase, Work>,
    /// The broker.
    pub broker: Broker,
    config: Config,
}

impl Service {
    /// Connects and brings the tables up to date.
    ///
    /// Dropping the future leaves the tables as far as they got.
    ///
    /// # Errors
    ///
    /// What the database and the broker say.
    pub async fn connect(config: &Config) -> Result<Service> {
        let db: Db = Db::connect(&config.database).await?;
        let outbox = Outbox::new(&db, "torture").with_config(config.outbox.clone());
        let too_large = config.broker.max_message_bytes + 1;
        let work = Work { db: db.clone(), outbox, too_large, troubles: Troubles::default() };
        let version = config.saga_version;
        let sagas = Sagas::new(&db, purchase::definition(version, PATIENCE), work.clone())
            .with_config(config.saga.clone());
        let sagas = (1..version)
            .fold(sagas, |all, older| all.with_older(purchase::definition(older, PATIENCE)));
        for set in [
            schema::migrations(),
            work.outbox.migrations(),
            Inbox::new(&db).migrations(),
            sagas.migrations(),
        ] {
            db.migrate(&set).await?;
        }
        let broker = Broker::connect(&config.broker).await?;
        Ok(Service { work, sagas, broker, config: config.clone() })
    }

    fn consumer(&self, name: &'static str) -> Consumer<Group> {
        let group = Group { name, work: self.work.clone() };
        Consumer::new(&self.broker, &self.work.db, name, group)
            .with_config(self.config.consumer.clone())
    }

    /// The parts that handle messages and move the sagas, without the load.
    #[must_use]
    pub fn parts(&self, app: App) -> App {
        let Service { work, sagas, broker, config } = self;
        let buyer = Consumer::new(broker, &work.db, BUYER, sagas.clone())
            .with_config(config.consumer.clone());
        let (db, closing) = (work.db.clone(), broker.clone());
        app.on_close("database", move || async move { db.close().await });
        app.on_close("broker", move || async move { closing.close().await });
        app.probe("database", work.db.probe())
            .probe("broker", broker.probe())
            .with(work.outbox.relay(broker))
            .with(sagas.runner())
            .with(self.consumer(MIRROR).on(changed).on(poison))
            .with(self.consumer(LEDGER).in_turn().on(changed).on(poison))
            .with(self.consumer(DESK).on(asked))
            .with(buyer.on(answered))
    }

    /// All parts.
    #[must_use]
    pub fn app(&self, app: App) -> App {
        let load = Load::new(self.work.clone(), self.sagas.clone(), self.config.load.clone());
        self.parts(app).with(load)
    }
}
