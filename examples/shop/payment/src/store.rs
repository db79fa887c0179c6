//! The queries: rows in, domain types out.
//!
//! The SQL runs on SQLite and PostgreSQL. Where two calls may meet on one row,
//! the row is locked by an update that changes nothing: `select … for update`
//! exists on only one of the two.

use chassis::Result;
use chassis::core::Error;
use chassis::data::{Db, Migrations, Row, Tx, params};

use crate::domain::{Charge, Money, Payment, State, Wish};

const BARRED: &str = "barred";

/// The tables of this service, and the books of the simulated provider.
pub fn migrations() -> Migrations {
    Migrations::new("payment").step(1, "payment", include_str!("../migrations/1_payment.sql")).step(
        2,
        "bank",
        include_str!("../migrations/2_bank.sql"),
    )
}

/// The payment of an order.
pub async fn payment(db: &Db, order_id: &str) -> Result<Option<Payment>> {
    let row = db
        .fetch_optional(
            "select order_id, payment_id, idempotency_key, amount_minor, currency, card_token,
                    state
             from payment where order_id = $1",
            params![order_id],
        )
        .await?;
    row.as_ref().map(to_payment).transpose()
}

/// As [`payment`], and nobody else changes it until the transaction ends.
pub async fn lock(tx: &mut Tx, order_id: &str) -> Result<Option<Payment>> {
    let row = tx
        .fetch_optional(
            "update payment set order_id = order_id where order_id = $1
             returning order_id, payment_id, idempotency_key, amount_minor, currency, card_token,
                       state",
            params![order_id],
        )
        .await?;
    row.as_ref().map(to_payment).transpose()
}

/// Writes the intent down where nothing is known of its order, or reads what
/// is; either way nobody else changes that payment until the transaction ends.
/// A second caller with the same order waits here for the first.
pub async fn claim_charge(tx: &mut Tx, charge: &Charge, now_ms: i64) -> Result<Option<Payment>> {
    let Charge { payment_id, wish, state } = charge;
    let inserted = tx
        .execute(
            "insert into payment (order_id, payment_id, idempotency_key, amount_minor, currency,
                                  card_token, state, created_at, changed_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (order_id) do nothing",
            params![
                wish.order_id.as_str(),
                payment_id.as_str(),
                wish.idempotency_key.as_str(),
                wish.amount.minor(),
                wish.amount.currency(),
                wish.card_token.as_str(),
                state.as_str(),
                now_ms,
                now_ms
            ],
        )
        .await?;
    known_after(tx, inserted, &wish.order_id).await
}

/// As [`claim_charge`], but what is written down bars every charge.
pub async fn claim_bar(tx: &mut Tx, order_id: &str, now_ms: i64) -> Result<Option<Payment>> {
    let inserted = tx
        .execute(
            "insert into payment (order_id, payment_id, idempotency_key, amount_minor, currency,
                                  card_token, state, created_at, changed_at)
             values ($1, '', '', 0, '', '', 'barred', $2, $3) on conflict (order_id) do nothing",
            params![order_id, now_ms, now_ms],
        )
        .await?;
    known_after(tx, inserted, order_id).await
}

/// Writes a changed state.
pub async fn save(tx: &mut Tx, charge: &Charge, now_ms: i64) -> Result<()> {
    tx.execute(
        "update payment set state = $2, changed_at = $3 where order_id = $1",
        params![charge.wish.order_id.as_str(), charge.state.as_str(), now_ms],
    )
    .await?;
    Ok(())
}

/// Charges whose outcome is not known and has not been since `changed_by_ms`
/// or before, the oldest first, at most `limit`.
pub async fn unsettled(db: &Db, changed_by_ms: i64, limit: i64) -> Result<Vec<Charge>> {
    let rows = db
        .fetch_all(
            "select order_id, payment_id, idempotency_key, amount_minor, currency, card_token,
                    state
             from payment
             where state in ('charging', 'refunding') and changed_at <= $1
             order by changed_at limit $2",
            params![changed_by_ms, limit],
        )
        .await?;
    let mut charges = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Payment::Charge(charge) = to_payment(row)? {
            charges.push(charge);
        }
    }
    Ok(charges)
}

async fn known_after(tx: &mut Tx, inserted: u64, order_id: &str) -> Result<Option<Payment>> {
    if inserted == 1 {
        return Ok(None);
    }
    let known = lock(tx, order_id).await?;
    known.map(Some).ok_or_else(|| Error::internal("a claimed payment is gone"))
}

fn to_payment(row: &Row) -> Result<Payment> {
    let state = row.text(6)?;
    if state == BARRED {
        return Ok(Payment::Barred);
    }
    let order_id = row.text(0)?;
    let state = State::parse(state)
        .ok_or_else(|| Error::internal(format!("payment of {order_id} has state {state:?}")))?;
    let amount = Money::new(row.int(3)?, row.text(4)?)
        .map_err(|wrong| Error::internal(format!("payment of {order_id}: {wrong:?}")))?;
    Ok(Payment::Charge(Charge {
        payment_id: row.text(1)?.to_owned(),
        wish: Wish {
            order_id: order_id.to_owned(),
            idempotency_key: row.text(2)?.to_owned(),
            amount,
            card_token: row.text(5)?.to_owned(),
        },
        state,
    }))
}
