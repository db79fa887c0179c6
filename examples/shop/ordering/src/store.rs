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

/// A request with an idempotency key.
#[derive(Clone, Debug)]
pub struct Request {
    /// The same for the same request.
    pub fingerprint: String,
    /// The order that it made.
    pub order_id: String,
}

/// Orders with their lines: one row for each line, to be read by [`read`].
macro_rules! select {
    ($orders:literal, $rest:literal) => {
        concat!(
            "select o.id, o.customer_id, o.status, o.reason, o.total_minor, o.currency,
             o.trace_id, l.sku, l.quantity from ",
            $orders,
            " o join order_lines l on l.order_id = o.id ",
            $rest
        )
    };
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

/// The request with this key, if there was one.
pub async fn find_request(db: &Db, customer: &str, key: &str) -> Result<Option<Request>> {
    let row = db.fetch_optional(REQUEST, params![customer, key]).await?;
    row.as_ref().map(request).transpose()
}

/// Remembers the request under its key, or gives the earlier one with that key. A second
/// caller waits here for the first one's transaction.
pub async fn claim_request(
    tx: &mut Tx,
    customer: &str,
    key: &str,
    new: &Request,
    now_ms: i64,
) -> Result<Option<Request>> {
    let inserted = tx
        .execute(
            "insert into order_requests
                (customer_id, idempotency_key, fingerprint, order_id, made_at)
             values ($1, $2, $3, $4, $5) on conflict (customer_id, idempotency_key) do nothing",
            params![customer, key, &*new.fingerprint, &*new.order_id, now_ms],
        )
        .await?;
    if inserted == 1 {
        return Ok(None);
    }
    let row = tx.fetch_optional(REQUEST, params![customer, key]).await?;
    row.as_ref().map(request).transpose()
}

const REQUEST: &str = "select fingerprint, order_id from order_requests
    where customer_id = $1 and idempotency_key = $2";

/// Reads an order, and nobody else changes it until the transaction ends.
pub async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Order>> {
    tx.execute("update orders set id = id where id = $1", params![id]).await?;
    let rows = tx.fetch_all(ONE, params![id]).await?;
    Ok(read(&rows)?.pop().map(|stored| stored.order))
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
    let rows = db.fetch_all(ONE, params![id]).await?;
    Ok(read(&rows)?.pop())
}

const ONE: &str = select!("orders", "where o.id = $1 order by l.position");

/// The newest orders of a customer, at most [`MAX_ORDERS`].
pub async fn of_customer(db: &Db, customer: &str) -> Result<Vec<Stored>> {
    const NEWEST: &str = select!(
        "(select * from orders where customer_id = $1 order by placed_at desc, id desc limit $2)",
        "order by o.placed_at desc, o.id desc, l.position"
    );
    let rows = db.fetch_all(NEWEST, params![customer, MAX_ORDERS]).await?;
    read(&rows)
}

/// The orders of these rows, in which the lines of an order stand together.
fn read(rows: &[Row]) -> Result<Vec<Stored>> {
    let mut orders: Vec<Stored> = Vec::new();
    for row in rows {
        let line = Line { sku: row.text(7)?.to_owned(), quantity: row.int(8)? };
        let id = row.text(0)?;
        match orders.last_mut() {
            Some(stored) if stored.order.id == id => stored.order.lines.push(line),
            _ => orders.push(stored(row, line)?),
        }
    }
    Ok(orders)
}

fn stored(row: &Row, first: Line) -> Result<Stored> {
    let status = row.text(2)?;
    let total = match (row.opt_int(4)?, row.opt_text(5)?) {
        (Some(minor), Some(currency)) => Some(Money { minor, currency: currency.to_owned() }),
        _ => None,
    };
    let order = Order {
        id: row.text(0)?.to_owned(),
        customer: row.text(1)?.to_owned(),
        lines: vec![first],
        status: Status::parse(status)
            .ok_or_else(|| Error::internal(format!("unknown order status `{status}`")))?,
        total,
        reason: row.opt_text(3)?.map(str::to_owned),
    };
    Ok(Stored { order, trace_id: row.text(6)?.to_owned() })
}

fn request(row: &Row) -> Result<Request> {
    Ok(Request { fingerprint: row.text(0)?.to_owned(), order_id: row.text(1)?.to_owned() })
}
