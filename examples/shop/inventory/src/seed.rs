//! The first pieces, so that the shop can be tried as soon as it runs.
//!
//! The skus are those that the catalogue starts with. One product has a single
//! piece and one has none: two customers for the last piece, and an order that
//! must fail, can be tried without preparing anything.

use chassis::Result;
use chassis::data::{Db, Tx};

use crate::store;

const PIECES: [(&str, i64); 7] = [
    ("espresso-cup", 1_000),
    ("latte-glass", 1_000),
    ("moka-pot", 1_000),
    // Enough for `shop load`.
    ("paper-filter", 1_000_000),
    ("rare-teapot", 1),
    ("sold-out-mug", 0),
    ("tea-bowl", 1_000),
];

/// Puts the first pieces into an empty database; another one is left alone.
///
/// Dropping the future puts in all or nothing.
///
/// # Errors
/// Those of the database.
pub async fn fill(db: &Db) -> Result<()> {
    db.transaction(fill_empty).await
}

async fn fill_empty(tx: &mut Tx) -> Result<()> {
    if !store::is_empty(tx).await? {
        return Ok(());
    }
    for (sku, on_hand) in PIECES {
        store::add_stock(tx, sku, on_hand).await?;
    }
    Ok(())
}
