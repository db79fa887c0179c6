//! The queries: rows in, domain types out.
//!
//! The SQL runs on SQLite and PostgreSQL. An order that is about to change is locked by an
//! update that changes nothing: `select … for update` exists on only one of the two.

use chassis::data::{Db, Migrations, Row, Tx, params};
use chassis::{Error, Result};

use crate::domain::{Line, Money, Order, Status};

/// The most orders that a list shows.
pub const MAX_ORDERS: i64 = 200;

/// The tables of this service.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new("ordering").step(1, "orders", include_str!("../migrations/1_orders.sql"))
}

/// An order with what the store knows beside it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The order.
    pub order: Order,
    /// The trace that placed it.
    pub trace_id: String,
}

/// What a request with an idempotency key asked for, and the order that it made.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request as text.
    pub request: String,
    /// The order's key.
    pub order_id: String,
}

/// Adds a new order.
pub async fn insert(tx: &mut Tx, order: &Order, trace_id: &str, now_ms: i64) -> Result<()> {
    tx.execute(
        "insert into orders (id, customer_id, status, trace_id, placed_at, changed_at)
         values ($1, $2, $3, $4, $5, $5)",
        params![&*order.id, &*order.customer, order.status.as_str(), trace_id, now_ms],
    )
    .await?;
    for (position, line) in (0_i64..).zip(&order.lines) {
        tx.execute(
            "insert into order_lines (order_id, position, sku, quantity) values ($1, $2, $3, $4)",
            params![&*order.id, position, &*line.sku, line.quantity],
        )
        .await?;
    }
    Ok(())
}

/// Remembers the request under its key, or gives the earlier one with that key. A second
/// caller waits here for the first one's transaction.
pub async fn claim_request(
    tx: &mut Tx,
    customer: &str,
    key: &str,
    request: &Request,
    now_ms: i64,
) -> Result<Option<Request>> {
    let inserted = tx
        .execute(
            "insert into order_requests (customer_id, idempotency_key, request, order_id, made_at)
             values ($1, $2, $3, $4, $5) on conflict (customer_id, idempotency_key) do nothing",
            params![customer, key, &*request.request, &*request.order_id, now_ms],
        )
        .await?;
    if inserted == 1 {
        return Ok(None);
    }
    let row = tx
        .fetch_optional(
            "select request, order_id from order_requests
             where customer_id = $1 and idempotency_key = $2",
            params![customer, key],
        )
        .await?;
    row.map(|row| {
        Ok(Request { request: row.text(0)?.to_owned(), order_id: row.text(1)?.to_owned() })
    })
    .transpose()
}

/// Reads an order, and nobody else changes it until the transaction ends.
pub async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Order>> {
    let row = tx
        .fetch_optional(
            "update orders set id = id where id = $1
             returning id, customer_id, status, reason, total_minor, currency, trace_id",
            params![id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let lines = tx
        .fetch_all(
            "select order_id, sku, quantity from order_lines where order_id = $1 order by position",
            params![id],
        )
        .await?;
    let lines = lines.iter().map(line).collect::<Result<_>>()?;
    Ok(Some(stored(&row, lines)?.order))
}

/// Writes a changed order.
pub async fn save(tx: &mut Tx, order: &Order, now_ms: i64) -> Result<()> {
    let total = order.total.as_ref();
    tx.execute(
        "update orders set status = $2, reason = $3, total_minor = $4, currency = $5,
         changed_at = $6 where id = $1",
        params![
            &*order.id,
            order.status.as_str(),
            order.reason.clone(),
            total.map(|total| total.minor),
            total.map(|total| total.currency.clone()),
            now_ms
        ],
    )
    .await?;
    Ok(())
}

/// One order.
pub async fn find(db: &Db, id: &str) -> Result<Option<Stored>> {
    let row = db
        .fetch_optional(
            "select id, customer_id, status, reason, total_minor, currency, trace_id
             from orders where id = $1",
            params![id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let lines = db
        .fetch_all(
            "select order_id, sku, quantity from order_lines where order_id = $1 order by position",
            params![id],
        )
        .await?;
    let lines = lines.iter().map(line).collect::<Result<_>>()?;
    stored(&row, lines).map(Some)
}

/// The newest orders of a customer, at most [`MAX_ORDERS`].
pub async fn of_customer(db: &Db, customer: &str) -> Result<Vec<Stored>> {
    let rows = db
        .fetch_all(
            "select id, customer_id, status, reason, total_minor, currency, trace_id
             from orders where customer_id = $1 order by placed_at desc, id desc limit $2",
            params![customer, MAX_ORDERS],
        )
        .await?;
    // All their lines in one query, not one for each order.
    let lines = db
        .fetch_all(
            "select l.order_id, l.sku, l.quantity from order_lines l
             join (select id from orders where customer_id = $1
                   order by placed_at desc, id desc limit $2) o on o.id = l.order_id
             order by l.order_id, l.position",
            params![customer, MAX_ORDERS],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let id = row.text(0)?;
            let own = lines.iter().filter(|line| line.text(0).is_ok_and(|owner| owner == id));
            stored(row, own.map(line).collect::<Result<_>>()?)
        })
        .collect()
}

fn line(row: &Row) -> Result<Line> {
    Ok(Line { sku: row.text(1)?.to_owned(), quantity: row.int(2)? })
}

fn stored(row: &Row, lines: Vec<Line>) -> Result<Stored> {
    let status = row.text(2)?;
    let total = match (row.opt_int(4)?, row.opt_text(5)?) {
        (Some(minor), Some(currency)) => Some(Money { minor, currency: currency.to_owned() }),
        _ => None,
    };
    let order = Order {
        id: row.text(0)?.to_owned(),
        customer: row.text(1)?.to_owned(),
        lines,
        status: Status::parse(status)
            .ok_or_else(|| Error::internal(format!("unknown order status `{status}`")))?,
        total,
        reason: row.opt_text(3)?.map(str::to_owned),
    };
    Ok(Stored { order, trace_id: row.text(6)?.to_owned() })
}
