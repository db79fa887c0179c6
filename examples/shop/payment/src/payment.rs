//! The use cases: write the intent, ask the provider, write the outcome.
//!
//! The provider cannot take part in our transactions, so a crash may fall
//! between its answer and our commit. What makes that harmless:
//!
//! 1. The intent (`charging`, `refunding`) is committed before the provider is
//!    asked; it holds the key under which the provider is asked.
//! 2. The provider is idempotent by that key.
//! 3. Whoever finds an intent without an outcome asks again: a caller that
//!    repeats its call, or the [settler](crate::settler) if none does.
//!
//! No transaction is open while the provider is asked: a slow provider must
//! not hold a database connection, or on SQLite the only writer.

use std::time::Duration;

use chassis::Result;
use chassis::core::{App, Error, Probe, unix_ms};
use chassis::data::{Db, Tx};
use chassis::discovery::{Discovery, Registration};

use crate::config::{Config, SettleConfig};
use crate::domain::{self, Charge, Next, Payment, Refund, Refused, Wish};
use crate::provider::Provider;
use crate::settler::Settler;
use crate::store;

/// Charges and refunds.
#[derive(Clone)]
pub struct Payments {
    db: Db,
    provider: Provider,
    discovery: Discovery,
    settle: SettleConfig,
}

impl Payments {
    /// Opens the database, brings its tables up to date and builds the way to
    /// the provider.
    ///
    /// # Errors
    /// Settings that cannot work, and those of the database.
    pub async fn connect(app: &App, config: &Config) -> Result<Payments> {
        config.settle.validate()?;
        let discovery = Discovery::new(&config.discovery)?;
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("payment-db", move || async move { pool.close().await });
        db.bind_metrics(app.metrics(), "payment");
        db.migrate(&store::migrations()).await?;
        let provider = Provider::moody(&config.provider, db.clone(), app.metrics())?;
        Ok(Payments { db, provider, discovery, settle: config.settle.clone() })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Fails while the circuit to the provider is open.
    pub fn provider_probe(&self) -> impl Probe + use<> {
        self.provider.probe()
    }

    /// Finishes what a crash has left halfway.
    pub fn settler(&self) -> Settler {
        Settler::new(self.clone(), self.settle.clone())
    }

    /// Makes this service known to the others.
    pub fn registration(&self) -> Registration {
        self.discovery.registration()
    }

    /// Takes the money of `wish`, once; returns the payment's id.
    ///
    /// Dropping the future leaves the outcome unknown: repeat the call with
    /// the same wish, or refund. The settler finds out what nobody asks for.
    ///
    /// # Errors
    /// `CARD_DECLINED`, `ORDER_REFUNDED`, `PAYMENT_DIFFERS`,
    /// `PROVIDER_UNAVAILABLE` (repeat), and those of the database.
    pub async fn charge(&self, wish: Wish) -> Result<String> {
        let new = Charge::intend(new_id(), wish);
        let (charge, next) =
            self.db.transaction(async move |tx| intend_charge(tx, &new).await).await?;
        match next {
            Next::Charged => Ok(charge.payment_id),
            Next::Ask => self.ask_for_money(charge).await,
        }
    }

    /// Gives back what was taken for an order, and bars every later charge.
    ///
    /// Dropping the future: as for [`Payments::charge`].
    ///
    /// # Errors
    /// `PROVIDER_UNAVAILABLE` (repeat), and those of the database.
    pub async fn refund(&self, order_id: &str) -> Result<()> {
        let order_id = order_id.to_owned();
        let asked = self.db.transaction(async move |tx| intend_refund(tx, &order_id).await).await?;
        match asked {
            None => Ok(()),
            Some(charge) => self.ask_to_give_back(&charge).await,
        }
    }

    /// The charge of an order. Dropping the future is harmless.
    ///
    /// # Errors
    /// `PAYMENT_NOT_FOUND` where nothing was ever charged, and those of the
    /// database.
    pub async fn charge_of(&self, order_id: &str) -> Result<Charge> {
        match store::payment(&self.db, order_id).await? {
            Some(Payment::Charge(charge)) => Ok(charge),
            Some(Payment::Barred) | None => {
                Err(Error::not_found("PAYMENT_NOT_FOUND", "nothing was charged for this order")
                    .with_detail("order_id", order_id))
            }
        }
    }

    /// Asks the provider again for what has been without an outcome for `age` or
    /// longer, at most `limit` of them; returns how many are settled now.
    ///
    /// Dropping the future leaves the rest for the next time.
    ///
    /// # Errors
    /// Those of the database. What the provider does not answer stays as it
    /// is.
    pub async fn settle(&self, age: Duration, limit: i64) -> Result<usize> {
        let by = unix_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut settled = 0;
        for charge in store::unsettled(&self.db, by, limit).await? {
            let order_id = charge.wish.order_id.clone();
            let outcome = match charge.state {
                domain::State::Refunding => self.ask_to_give_back(&charge).await,
                _ => self.ask_for_money(charge).await.map(drop),
            };
            match outcome {
                // A refusal is an outcome too.
                Err(error) if error.code().is_retryable() || error.code().is_server_fault() => {
                    tracing::warn!(order_id, error = error.chain(), "a charge is still unsettled");
                }
                _ => settled += 1,
            }
        }
        Ok(settled)
    }

    async fn ask_for_money(&self, charge: Charge) -> Result<String> {
        let verdict = self.provider.charge(&charge).await?;
        let order_id = charge.wish.order_id;
        self.db
            .transaction(async move |tx| {
                let mut charge = lock(tx, &order_id).await?;
                let answer = charge.settle(verdict);
                store::save(tx, &charge, unix_ms()).await?;
                // Committed also where the answer is no: it must be kept.
                Ok(answer.map(|()| charge.payment_id))
            })
            .await?
            .map_err(refused)
    }

    async fn ask_to_give_back(&self, charge: &Charge) -> Result<()> {
        self.provider.give_back(charge).await?;
        let order_id = charge.wish.order_id.clone();
        self.db
            .transaction(async move |tx| {
                let mut charge = lock(tx, &order_id).await?;
                charge.refunded();
                store::save(tx, &charge, unix_ms()).await
            })
            .await
    }
}

async fn intend_charge(tx: &mut Tx, new: &Charge) -> Result<(Charge, Next)> {
    let known = store::claim_charge(tx, new, unix_ms()).await?;
    let Some(known) = known else {
        return Ok((new.clone(), Next::Ask));
    };
    let next = known.charge(&new.wish).map_err(refused)?;
    match known {
        Payment::Charge(charge) => Ok((charge, next)),
        Payment::Barred => Err(refused(Refused::Refunded)),
    }
}

async fn intend_refund(tx: &mut Tx, order_id: &str) -> Result<Option<Charge>> {
    match store::claim_bar(tx, order_id, unix_ms()).await? {
        None | Some(Payment::Barred) => Ok(None),
        Some(Payment::Charge(mut charge)) => match charge.refund() {
            Refund::Nothing => Ok(None),
            Refund::Ask => {
                store::save(tx, &charge, unix_ms()).await?;
                Ok(Some(charge))
            }
        },
    }
}

async fn lock(tx: &mut Tx, order_id: &str) -> Result<Charge> {
    match store::lock(tx, order_id).await? {
        Some(Payment::Charge(charge)) => Ok(charge),
        Some(Payment::Barred) | None => {
            Err(Error::internal(format!("the charge of {order_id} is gone")))
        }
    }
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Declined => {
            Error::failed_precondition("CARD_DECLINED", "the bank declined the card")
        }
        Refused::Refunded => Error::failed_precondition(
            "ORDER_REFUNDED",
            "the payment of this order was given back; it cannot be charged again",
        ),
        Refused::Differs => {
            Error::already_exists("PAYMENT_DIFFERS", "this order has another payment")
        }
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
