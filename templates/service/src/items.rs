//! The use cases: each change is one transaction of state and outbox.

use chassis::core::{App, Probe};
use chassis::data::{Db, Migrations, params};
use chassis::messaging::{Broker, Outbox, Relay};
use chassis::{Error, Result};

use crate::config::Config;
use crate::events::ItemAdded;

/// Longest name, in bytes.
const MAX_NAME: usize = 200;

/// The items. Cheap to clone.
#[derive(Clone)]
pub struct Items {
    db: Db,
    broker: Broker,
    outbox: Outbox,
}

/// One item.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
}

fn migrations() -> Migrations {
    Migrations::new("items").step(1, "item", include_str!("../migrations/1_item.sql"))
}

impl Items {
    /// Opens database and broker, and brings the tables up to date.
    ///
    /// # Errors
    /// Settings that cannot work, and those of database and broker.
    pub async fn connect(app: &App, config: &Config) -> Result<Items> {
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("db", move || async move { pool.close().await });
        db.bind_metrics(app.metrics(), "items");
        let broker = Broker::connect(&config.broker).await?;
        let outbox = Outbox::new(&db, "{{project-name}}");
        for tables in [outbox.migrations(), migrations()] {
            db.migrate(&tables).await?;
        }
        Ok(Items { db, broker, outbox })
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

    /// The broker, for tests that listen.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Adds an item. Dropping the future leaves open whether it was added.
    ///
    /// # Errors
    /// `INVALID_ITEM` with the field, `NAME_TAKEN`, and those of the database.
    pub async fn add(&self, name: String) -> Result<Item> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::invalid_argument("INVALID_ITEM", "the item is not valid")
                .with_field("name", format!("must have 1 to {MAX_NAME} bytes")));
        }
        let item = Item { id: uuid::Uuid::now_v7().to_string(), name };
        let (row, outbox) = (item.clone(), self.outbox.clone());
        self.db
            .transaction(async move |tx| {
                let sql = "insert into item (id, name) values ($1, $2)
                           on conflict (name) do nothing";
                if tx.execute(sql, params![&*row.id, &*row.name]).await? == 0 {
                    return Err(Error::already_exists("NAME_TAKEN", "this name is taken"));
                }
                let event = ItemAdded { id: row.id.clone(), name: row.name.clone() };
                outbox.append(tx, &event).await?;
                Ok(())
            })
            .await?;
        Ok(item)
    }

    /// One item. Dropping the future is harmless.
    ///
    /// # Errors
    /// `ITEM_NOT_FOUND`, and those of the database.
    pub async fn find(&self, id: &str) -> Result<Item> {
        let row = self.db.fetch_optional("select id, name from item where id = $1", params![id]);
        let row = row.await?.ok_or_else(|| Error::not_found("ITEM_NOT_FOUND", "no such item"))?;
        Ok(Item { id: row.text(0)?.to_owned(), name: row.text(1)?.to_owned() })
    }
}
