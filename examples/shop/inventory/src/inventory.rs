//! The use cases: each is one database transaction.
//!
//! Callers repeat their calls, and an undo may overtake its forward call. So
//! each use case first claims the reservation's id in its own transaction: of
//! two calls with one id the second waits, and then sees what the first did.

use chassis::Result;
use chassis::core::{App, Error, Probe, unix_ms};
use chassis::data::{Db, Tx};
use chassis::discovery::{Discovery, Registration};

use crate::config::Config;
use crate::domain::{self, Lines, Refused, Release, Reservation, Reserve, Stock};
use crate::seed;
use crate::store::{self, ClaimAs};

/// Stock and reservations.
#[derive(Clone)]
pub struct Inventory {
    db: Db,
    discovery: Discovery,
}

impl Inventory {
    /// Opens the database, brings its tables up to date and, where it is
    /// empty and the configuration says so, puts the first pieces in.
    ///
    /// # Errors
    /// Settings that cannot work, and those of the database.
    pub async fn connect(app: &App, config: &Config) -> Result<Inventory> {
        let discovery = Discovery::new(&config.discovery)?;
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("inventory-db", move || async move { pool.close().await });
        db.bind_metrics(app.metrics(), "inventory");
        db.migrate(&store::migrations()).await?;
        if config.seed {
            seed::fill(&db).await?;
        }
        Ok(Inventory { db, discovery })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Makes this service known to the others.
    pub fn registration(&self) -> Registration {
        self.discovery.registration()
    }

    /// Keeps pieces under an id, all lines or none. A repeated call changes
    /// nothing.
    ///
    /// Dropping the future before it ends keeps nothing, or all if the commit
    /// was on its way: repeat the call to know.
    ///
    /// # Errors
    /// `OUT_OF_STOCK`, `PRODUCT_NOT_FOUND`, `RESERVATION_RELEASED`,
    /// `RESERVATION_DIFFERS`, and those of the database.
    pub async fn reserve(&self, id: &str, wanted: &Lines) -> Result<()> {
        let (id, wanted) = (id.to_owned(), wanted.clone());
        self.db.transaction(async move |tx| reserve(tx, &id, &wanted).await).await
    }

    /// Gives the pieces of an id back. A repeated call changes nothing; an id
    /// that is not known is closed for ever.
    ///
    /// Dropping the future: as for [`Inventory::reserve`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.db.transaction(async move |tx| release(tx, &id).await).await
    }

    /// The stock of one product. Dropping the future is harmless.
    ///
    /// # Errors
    /// `PRODUCT_NOT_FOUND`, and those of the database.
    pub async fn stock(&self, sku: &str) -> Result<Stock> {
        store::stock(&self.db, sku).await?.ok_or_else(|| product_not_found(sku))
    }
}

async fn reserve(tx: &mut Tx, id: &str, wanted: &Lines) -> Result<()> {
    let known = store::claim(tx, id, ClaimAs::Held, unix_ms()).await?;
    match domain::reserve(known.as_ref(), wanted).map_err(refused)? {
        Reserve::AlreadyKept => Ok(()),
        Reserve::Keep => keep(tx, id, wanted).await,
    }
}

async fn keep(tx: &mut Tx, id: &str, wanted: &Lines) -> Result<()> {
    for (sku, quantity) in wanted.iter() {
        let stock = store::lock_stock(tx, sku).await?.ok_or_else(|| product_not_found(sku))?;
        let stock = stock.reserve(quantity).map_err(|out| {
            Error::failed_precondition("OUT_OF_STOCK", "there are not enough pieces")
                .with_detail("sku", sku)
                .with_detail("available", out.available.to_string())
        })?;
        store::save_stock(tx, sku, stock).await?;
    }
    store::save_lines(tx, id, wanted).await
}

async fn release(tx: &mut Tx, id: &str) -> Result<()> {
    let known: Option<Reservation> = store::claim(tx, id, ClaimAs::Released, unix_ms()).await?;
    match domain::release(known) {
        Release::Bury | Release::AlreadyReleased => Ok(()),
        Release::Free(lines) => {
            for (sku, quantity) in lines.iter() {
                let stock =
                    store::lock_stock(tx, sku).await?.ok_or_else(|| product_not_found(sku))?;
                let stock = stock.release(quantity).map_err(Error::internal)?;
                store::save_stock(tx, sku, stock).await?;
            }
            store::save_released(tx, id, unix_ms()).await
        }
    }
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Released => Error::failed_precondition(
            "RESERVATION_RELEASED",
            "this reservation was released; it cannot be made again",
        ),
        Refused::Differs => Error::already_exists(
            "RESERVATION_DIFFERS",
            "there is a reservation of other lines with this id",
        ),
    }
}

fn product_not_found(sku: &str) -> Error {
    Error::not_found("PRODUCT_NOT_FOUND", "there is no such product").with_detail("sku", sku)
}
