//! The one use case: a confirmed order becomes a parcel.

use chassis::Result;
use chassis::core::{App, Probe, unix_ms};
use chassis::data::{Db, Tx};
use chassis::messaging::{Broker, ConsumerConfig, Inbox, Outbox, Relay};

use crate::config::Config;
use crate::domain::Parcel;
use crate::{events, store};

/// Parcels. Cheap to clone.
#[derive(Clone)]
pub struct Shipping {
    pub(crate) db: Db,
    pub(crate) broker: Broker,
    pub(crate) consumer: ConsumerConfig,
    outbox: Outbox,
}

impl Shipping {
    /// Opens database and broker, and brings the tables up to date.
    ///
    /// # Errors
    /// Settings that cannot work, and those of database and broker.
    pub async fn connect(app: &App, config: &Config) -> Result<Shipping> {
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("shipping-db", move || async move { pool.close().await });
        let broker = Broker::connect(&config.broker).await?;
        let outbox = Outbox::new(&db, "shipping").with_config(config.outbox.clone());
        let inbox = Inbox::new(&db);
        for migrations in [outbox.migrations(), inbox.migrations(), store::migrations()] {
            db.migrate(&migrations).await?;
        }
        Ok(Shipping { db, broker, consumer: config.consumer.clone(), outbox })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Asks the broker whether it answers.
    pub fn broker_probe(&self) -> impl Probe + use<> {
        self.broker.probe()
    }

    /// Publishes what the transactions appended.
    pub fn outbox_relay(&self) -> Relay {
        self.outbox.relay(&self.broker)
    }

    /// Hands a packed parcel to the carrier and says so, in the caller's transaction. An
    /// order that has a parcel gets no second one.
    ///
    /// Dropping the future leaves the transaction to the caller.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ship(&self, tx: &mut Tx, parcel: &Parcel) -> Result<()> {
        if store::insert(tx, parcel, unix_ms()).await? {
            self.outbox.append(tx, &events::shipped(parcel)).await?;
        }
        Ok(())
    }
}
