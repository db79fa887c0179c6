//! A saga that moves stock and money by commands and replies.
//!
//! It reserves, charges, and confirms; some are refused, at either place, and then what
//! was taken is put back. A command may come twice, late, or after its undo, so a claim
//! has one row per purchase and book, and an undo that comes first leaves a mark there.

use std::time::Duration;

use chassis::data::{Tx, params};
use chassis::messaging::saga::{Failure, SagaDefinition, StepInfo};
use chassis::{Error, Result};
use serde::{Deserialize, Serialize};

use super::events::{Asked, Book};
use super::work::{Work, new_id};

/// The name of the definition.
pub const NAME: &str = "purchase";

/// The data of the saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// The business key.
    pub purchase: String,
    /// Which line of both books.
    pub line: String,
    /// How much of both.
    pub amount: i64,
}

/// The table of steps. `patience` bounds the wait for a reply. From version 2 on it takes
/// the money first.
#[must_use]
pub fn definition(version: u32, patience: Duration) -> SagaDefinition<Purchase, Work> {
    let saga = SagaDefinition::new(NAME, version);
    let saga = if version < 2 {
        saga.step("reserve", reserve, reserve)
            .wait_for_with("stock", patience, replied)
            .step("charge", charge, charge)
            .wait_for_with("money", patience, replied)
    } else {
        saga.step("charge", charge, charge)
            .wait_for_with("money", patience, replied)
            .step("reserve", reserve, reserve)
            .wait_for_with("stock", patience, replied)
    };
    saga.pivot("confirm", confirm).on_cancelled(cancelled)
}

async fn reserve(work: Work, data: Purchase, step: StepInfo) -> Result<Purchase> {
    ask(work, data, step, Book::Stock).await
}

async fn charge(work: Work, data: Purchase, step: StepInfo) -> Result<Purchase> {
    ask(work, data, step, Book::Money).await
}

/// Asks for it, or for its undo: which of the two stands in the step.
async fn ask(work: Work, data: Purchase, step: StepInfo, book: Book) -> Result<Purchase> {
    let place = format!("{}{}", step.step, if step.undo { "/undo" } else { "" });
    work.troubles.before(&place).await?;
    let Purchase { purchase, line, amount } = data.clone();
    let asked = Asked { id: new_id(), purchase, book, line, amount, undo: step.undo };
    let mut tx = work.db.begin().await?;
    work.say(&mut tx, &asked.id, &asked, &asked.purchase, None).await?;
    tx.commit().await?;
    work.troubles.after(&place)?;
    Ok(data)
}

fn replied(data: Purchase, reply: serde_json::Value) -> Result<Purchase> {
    match reply["refused"].as_bool() {
        Some(false) => Ok(data),
        _ => Err(Error::failed_precondition("REFUSED", "there is not enough")),
    }
}

async fn confirm(work: Work, tx: &mut Tx, data: Purchase) -> Result<Purchase> {
    work.troubles.before("confirm").await?;
    ended(tx, &data.purchase, "confirmed").await?;
    work.troubles.after("confirm")?;
    Ok(data)
}

async fn cancelled(work: Work, tx: &mut Tx, data: Purchase, _: Failure) -> Result<()> {
    work.troubles.before("cancelled").await?;
    ended(tx, &data.purchase, "cancelled").await?;
    work.troubles.after("cancelled")
}

async fn ended(tx: &mut Tx, purchase: &str, outcome: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO torture_ended (purchase, outcome) VALUES ($1, $2)";
    tx.execute(SQL, params![purchase, outcome]).await.map(drop)
}

/// Does what a command says, once. Gives whether it was refused.
///
/// Dropping the future leaves the transaction as a failed statement does: roll it back.
///
/// # Errors
///
/// What the database says.
pub async fn book(tx: &mut Tx, asked: &Asked) -> Result<bool> {
    const CLAIM: &str = "INSERT INTO torture_claim (book, purchase, line, amount, state)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (book, purchase) DO NOTHING";
    const UNDO: &str = "UPDATE torture_claim SET state = 'undone'
        WHERE book = $1 AND purchase = $2 AND state = 'taken'";
    const STATE: &str = "SELECT state FROM torture_claim WHERE book = $1 AND purchase = $2";
    let Asked { purchase, line, amount, .. } = asked;
    let book = asked.book.name();
    let state = match (asked.undo, refuses(asked)) {
        (true, _) => "undone",
        (false, true) => "refused",
        (false, false) => "taken",
    };
    let first = tx.execute(CLAIM, params![book, purchase, line, *amount, state]).await? == 1;
    if first && state == "taken" {
        take(tx, book, line, *amount).await?;
    }
    if !first && asked.undo && tx.execute(UNDO, params![book, purchase]).await? == 1 {
        take(tx, book, line, -*amount).await?;
    }
    let row = tx.fetch_optional(STATE, params![book, purchase]).await?;
    let row = row.ok_or_else(|| Error::internal("the claim is gone"))?;
    Ok(row.text(0)? != "taken")
}

async fn take(tx: &mut Tx, book: &str, line: &str, amount: i64) -> Result<()> {
    const SQL: &str = "UPDATE torture_book SET amount = amount - $3
        WHERE book = $1 AND line = $2";
    match tx.execute(SQL, params![book, line, amount]).await? {
        1 => Ok(()),
        _ => Err(Error::internal("there is no such line in the book")),
    }
}

/// One purchase in six is refused by the shelf, one in five by the account.
fn refuses(asked: &Asked) -> bool {
    let every = if asked.book == Book::Stock { 6 } else { 5 };
    asked.amount % every == 0
}
