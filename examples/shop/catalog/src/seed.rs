//! The first products, so that the shop can be tried as soon as it runs.

use chassis::Result;
use chassis::core::Error;
use chassis::data::{Db, Tx};

use crate::domain::{Price, Product, Sku};
use crate::store;

/// Sku, name, description, price in cents.
const PRODUCTS: [(&str, &str, &str, i64); 7] = [
    ("espresso-cup", "Espresso cup", "Thick walls, 60 ml: it keeps a short coffee hot.", 1_200),
    ("latte-glass", "Latte glass", "Double-walled, 350 ml: shows the layers.", 1_450),
    ("moka-pot", "Moka pot", "Aluminium, for three cups.", 3_490),
    ("paper-filter", "Paper filter", "One filter, unbleached.", 5),
    ("rare-teapot", "Rare teapot", "Cast iron, signed. There is only one.", 24_900),
    ("sold-out-mug", "Sold-out mug", "The one that everybody wanted.", 990),
    ("tea-bowl", "Tea bowl", "Stoneware, ash glaze, no two alike.", 1_800),
];

/// Puts the first products into an empty database; another one is left alone.
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
    for (sku, name, description, price) in PRODUCTS {
        let product = Product {
            sku: Sku::parse(sku).map_err(|_| Error::internal("a seeded sku"))?,
            name: name.to_owned(),
            description: description.to_owned(),
            price: Price::new(price, "EUR").map_err(|_| Error::internal("a seeded price"))?,
        };
        store::add(tx, &product).await?;
    }
    Ok(())
}
