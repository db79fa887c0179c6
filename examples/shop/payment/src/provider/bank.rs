//! The books of the simulated provider: idempotent by key, like a real one's.
//!
//! They are durable, because the question "was it charged twice?" is only
//! worth asking if the provider remembers more than the process that crashed.
//! They use the service's database file, but each call is a transaction of its
//! own, never one with the service: that is the gap which the service must
//! bridge.

use chassis::Result;
use chassis::core::Error;
use chassis::data::{Db, Tx, params};

use crate::domain::{Charge, Verdict};

/// The card that every bank declines.
pub const DECLINED_CARD: &str = "tok_declined";

/// The provider's books.
#[derive(Clone)]
pub struct Bank {
    db: Db,
}

impl Bank {
    /// Books in this database.
    pub fn new(db: Db) -> Bank {
        Bank { db }
    }

    /// Takes the money, or says again what it said before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn charge(&self, charge: &Charge) -> Result<Verdict> {
        let charge = charge.clone();
        self.db.transaction(async move |tx| charge_once(tx, &charge).await).await
    }

    /// Gives back what was taken under a key; where nothing was, closes it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn give_back(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.db.transaction(async move |tx| give_back_once(tx, &key).await).await
    }

    /// What is kept under each order's key: money that was taken and not given
    /// back, in minor units.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn kept(&self) -> Result<i64> {
        let rows = self
            .db
            .fetch_all("select amount_minor from bank_book where verdict = 'approved'", params![])
            .await?;
        rows.iter().map(|row| row.int(0)).sum()
    }
}

async fn charge_once(tx: &mut Tx, charge: &Charge) -> Result<Verdict> {
    let declined = charge.wish.card_token == DECLINED_CARD;
    tx.execute(
        "insert into bank_book (charge_key, verdict, amount_minor, currency)
         values ($1, $2, $3, $4) on conflict (charge_key) do nothing",
        params![
            charge.payment_id.as_str(),
            if declined { "declined" } else { "approved" },
            charge.wish.amount.minor(),
            charge.wish.amount.currency()
        ],
    )
    .await?;
    let row = tx
        .fetch_optional(
            "select verdict from bank_book where charge_key = $1",
            params![charge.payment_id.as_str()],
        )
        .await?
        .ok_or_else(|| Error::internal("an entry in the bank's books is gone"))?;
    match row.text(0)? {
        "approved" => Ok(Verdict::Approved),
        "declined" => Ok(Verdict::Declined),
        _ => Ok(Verdict::Closed),
    }
}

async fn give_back_once(tx: &mut Tx, key: &str) -> Result<()> {
    tx.execute(
        "insert into bank_book (charge_key, verdict, amount_minor, currency)
         values ($1, 'closed', 0, '') on conflict (charge_key) do nothing",
        params![key],
    )
    .await?;
    tx.execute(
        "update bank_book set verdict = 'returned' where charge_key = $1 and verdict = 'approved'",
        params![key],
    )
    .await?;
    Ok(())
}
