//! What takes effect, written down in the handler's own transaction.
//!
//! Nothing here guards against a second delivery: that is the inbox's task, and the
//! auditor wants to see where it fails.

use std::time::Duration;

use chassis::data::{Tx, params};
use chassis::messaging::saga::Sagas;
use chassis::{Error, Result};

use super::events::{Answered, Asked, Changed, Poison};
use super::purchase::{self, Purchase};
use super::service::PATIENCE;
use super::troubles::Trouble;
use super::work::{Work, new_id};

/// Who hears of changes: two groups, each of which must get all of them. This one takes
/// them as they come, for the contrast.
pub const MIRROR: &str = "mirror";
/// The second one takes them in turn, each after the one before it.
pub const LEDGER: &str = "ledger";
/// How much later than it is waited for a late reply is sent.
const LATER: Duration = Duration::from_secs(1);

/// The group that keeps the books.
pub const DESK: &str = "desk";
/// The group that takes the replies.
pub const BUYER: &str = "buyer";

/// The state of the handlers of one group.
#[derive(Clone)]
pub struct Group {
    /// The name of the group.
    pub name: &'static str,
    /// What the business code needs.
    pub work: Work,
}

/// Writes an effect down, and gives how many this handler has had on the item.
///
/// Dropping the future leaves the transaction as a failed statement does: roll it back.
///
/// # Errors
///
/// What the database says.
pub async fn note(
    tx: &mut Tx,
    handler: &str,
    message_id: &str,
    item: &str,
    version: Option<i64>,
) -> Result<i64> {
    const NTH: &str = "INSERT INTO torture_seen (handler, item, effects) VALUES ($1, $2, 1)
        ON CONFLICT (handler, item) DO UPDATE SET effects = torture_seen.effects + 1
        RETURNING effects";
    const EFFECT: &str = "INSERT INTO torture_effect (handler, message_id, item, version, nth)
        VALUES ($1, $2, $3, $4, $5)";
    let row = tx.fetch_optional(NTH, params![handler, item]).await?;
    let row = row.ok_or_else(|| Error::internal("the count was not returned"))?;
    let nth = row.int(0)?;
    tx.execute(EFFECT, params![handler, message_id, item, version, nth]).await?;
    Ok(nth)
}

/// Notes a change.
///
/// # Errors
///
/// What the database says.
pub async fn changed(group: Group, tx: &mut Tx, event: Changed) -> Result<()> {
    note(tx, group.name, &event.id, &event.item, Some(event.version)).await.map(drop)
}

/// Fails, in one way or another, after it has written.
///
/// # Errors
///
/// Always.
#[expect(clippy::panic, reason = "a handler that panics is what is tried out")]
pub async fn poison(group: Group, tx: &mut Tx, event: Poison) -> Result<()> {
    note(tx, group.name, &event.id, "poison", None).await?;
    if event.panics {
        panic!("a poison message");
    }
    Err(Error::invalid_argument("POISON", "nobody can handle this"))
}

/// Keeps the books, and answers.
///
/// # Errors
///
/// What the database says.
pub async fn asked(group: Group, tx: &mut Tx, event: Asked) -> Result<()> {
    note(tx, group.name, &event.id, &event.purchase, None).await?;
    let refused = purchase::book(tx, &event).await?;
    if event.undo {
        return Ok(());
    }
    let Asked { purchase, book, .. } = event;
    let answer = Answered { id: new_id(), purchase: purchase.clone(), book, refused };
    if group.work.troubles.at(book.name()) == Some(Trouble::Late) {
        return group.work.say_later(tx, &answer.id, &answer, &purchase, PATIENCE + LATER).await;
    }
    group.work.say(tx, &answer.id, &answer, &purchase, None).await
}

/// Tells the saga.
///
/// # Errors
///
/// What the database says.
pub async fn answered(sagas: Sagas<Purchase, Work>, tx: &mut Tx, event: Answered) -> Result<()> {
    note(tx, BUYER, &event.id, &event.purchase, None).await?;
    let refused = serde_json::json!({ "refused": event.refused });
    sagas.signal(tx, &event.purchase, event.book.name(), refused).await
}
