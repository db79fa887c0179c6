//! The two use cases: keep news, and list it.

use chassis::Result;
use chassis::core::{App, Probe};
use chassis::data::{Db, Tx};
use chassis::discovery::{Discovery, Registration};
use chassis::messaging::{Broker, ConsumerConfig, Inbox};

use crate::config::Config;
use crate::domain::Happened;
use crate::store::{self, News};

/// What each customer was told. Cheap to clone.
#[derive(Clone)]
pub struct Notification {
    pub(crate) db: Db,
    pub(crate) broker: Broker,
    pub(crate) consumer: ConsumerConfig,
    discovery: Discovery,
}

impl Notification {
    /// Opens database and broker, and brings the tables up to date.
    ///
    /// # Errors
    /// Settings that cannot work, and those of database and broker.
    pub async fn connect(app: &App, config: &Config) -> Result<Notification> {
        let discovery = Discovery::new(&config.discovery)?;
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("notification-db", move || async move { pool.close().await });
        let broker = Broker::connect(&config.broker).await?;
        for migrations in [Inbox::new(&db).migrations(), store::migrations()] {
            db.migrate(&migrations).await?;
        }
        Ok(Notification { db, broker, consumer: config.consumer.clone(), discovery })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Asks the broker whether it answers.
    pub fn broker_probe(&self) -> impl Probe + use<> {
        self.broker.probe()
    }

    /// Makes this service known to the others.
    pub fn registration(&self) -> Registration {
        self.discovery.registration()
    }

    /// Keeps what a customer is told, in the caller's transaction. The same news of an order
    /// is kept once.
    ///
    /// Dropping the future leaves the transaction to the caller.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tell(
        &self,
        tx: &mut Tx,
        customer: &str,
        order: &str,
        happened: &Happened,
    ) -> Result<()> {
        store::insert(tx, customer, order, happened).await
    }

    /// The newest news of a customer, of one order or of all. Dropping the future is harmless.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn news(&self, customer: &str, order: Option<&str>) -> Result<Vec<News>> {
        store::of_customer(&self.db, customer, order).await
    }
}
