//! The queries: rows in, domain types out.
//!
//! The SQL runs on SQLite and PostgreSQL. Where two calls may meet on one row,
//! the row is locked by an update that changes nothing: `select … for update`
//! exists on only one of the two.

use chassis::Result;
use chassis::core::Error;
use chassis::data::{Db, Migrations, Tx, params};

use crate::domain::{Lines, Reservation, Stock};

/// The tables of this service.
pub fn migrations() -> Migrations {
    Migrations::new("inventory").step(1, "stock", include_str!("../migrations/1_stock.sql"))
}

/// The stock of a product, or nothing where there is no such product.
pub async fn stock(db: &Db, sku: &str) -> Result<Option<Stock>> {
    let row = db
        .fetch_optional("select on_hand, reserved from stock where sku = $1", params![sku])
        .await?;
    row.map(|row| to_stock(row.int(0)?, row.int(1)?)).transpose()
}

/// As [`stock`], and nobody else changes it until the transaction ends.
pub async fn lock_stock(tx: &mut Tx, sku: &str) -> Result<Option<Stock>> {
    let row = tx
        .fetch_optional(
            "update stock set sku = sku where sku = $1 returning on_hand, reserved",
            params![sku],
        )
        .await?;
    row.map(|row| to_stock(row.int(0)?, row.int(1)?)).transpose()
}

/// Writes a changed stock.
pub async fn save_stock(tx: &mut Tx, sku: &str, stock: Stock) -> Result<()> {
    tx.execute(
        "update stock set on_hand = $2, reserved = $3 where sku = $1",
        params![sku, stock.on_hand(), stock.reserved()],
    )
    .await?;
    Ok(())
}

/// Adds a product unless it is there.
pub async fn add_stock(tx: &mut Tx, sku: &str, on_hand: i64) -> Result<()> {
    tx.execute(
        "insert into stock (sku, on_hand) values ($1, $2) on conflict (sku) do nothing",
        params![sku, on_hand],
    )
    .await?;
    Ok(())
}

/// True where no product is known.
pub async fn is_empty(tx: &mut Tx) -> Result<bool> {
    Ok(tx.fetch_optional("select 1 from stock limit 1", params![]).await?.is_none())
}

/// Writes `state` down for an id that nothing is written for, or reads what
/// is; either way nobody else changes that reservation until the transaction
/// ends. A second caller with the same id waits here for the first.
pub async fn claim(
    tx: &mut Tx,
    id: &str,
    state: ClaimAs,
    now_ms: i64,
) -> Result<Option<Reservation>> {
    let inserted = tx
        .execute(
            "insert into reservation (id, state, created_at, changed_at)
             values ($1, $2, $3, $4) on conflict (id) do nothing",
            params![id, state.as_str(), now_ms, now_ms],
        )
        .await?;
    if inserted == 1 {
        return Ok(None);
    }
    let row = tx
        .fetch_optional("update reservation set id = id where id = $1 returning state", params![id])
        .await?
        .ok_or_else(|| Error::internal("a claimed reservation is gone"))?;
    match row.text(0)? {
        "held" => Ok(Some(Reservation::Held(lines(tx, id).await?))),
        "released" => Ok(Some(Reservation::Released)),
        other => Err(Error::internal(format!("reservation {id} has the state {other:?}"))),
    }
}

/// What [`claim`] writes for a new id.
#[derive(Clone, Copy, Debug)]
pub enum ClaimAs {
    /// Pieces will be kept.
    Held,
    /// A gravestone.
    Released,
}

impl ClaimAs {
    fn as_str(self) -> &'static str {
        match self {
            ClaimAs::Held => "held",
            ClaimAs::Released => "released",
        }
    }
}

/// Writes down what a new reservation keeps.
pub async fn save_lines(tx: &mut Tx, id: &str, lines: &Lines) -> Result<()> {
    for (sku, quantity) in lines.iter() {
        tx.execute(
            "insert into reservation_line (reservation_id, sku, quantity) values ($1, $2, $3)",
            params![id, sku, quantity],
        )
        .await?;
    }
    Ok(())
}

/// Marks a reservation as released.
pub async fn save_released(tx: &mut Tx, id: &str, now_ms: i64) -> Result<()> {
    tx.execute(
        "update reservation set state = 'released', changed_at = $2 where id = $1",
        params![id, now_ms],
    )
    .await?;
    Ok(())
}

async fn lines(tx: &mut Tx, id: &str) -> Result<Lines> {
    let rows = tx
        .fetch_all(
            "select sku, quantity from reservation_line where reservation_id = $1",
            params![id],
        )
        .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in &rows {
        lines.push((row.text(0)?.to_owned(), row.int(1)?));
    }
    Lines::new(lines).map_err(|wrong| Error::internal(format!("reservation {id}: {wrong:?}")))
}

fn to_stock(on_hand: i64, reserved: i64) -> Result<Stock> {
    Stock::new(on_hand, reserved).map_err(Error::internal)
}
