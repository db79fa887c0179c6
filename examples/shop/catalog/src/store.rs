//! The queries: rows in, domain types out. The SQL runs on SQLite and
//! PostgreSQL.

use chassis::Result;
use chassis::core::Error;
use chassis::data::{Db, Migrations, Row, Tx, params};

use crate::domain::{Price, Product, Sku};

/// The tables of this service.
pub fn migrations() -> Migrations {
    Migrations::new("catalog").step(1, "product", include_str!("../migrations/1_product.sql"))
}

/// One product.
pub async fn product(db: &Db, sku: &Sku) -> Result<Option<Product>> {
    let row = db
        .fetch_optional(
            "select sku, name, description, price_minor, currency from product where sku = $1",
            params![sku.as_str()],
        )
        .await?;
    row.as_ref().map(to_product).transpose()
}

/// At most `limit` products, ordered by sku.
pub async fn products(db: &Db, limit: i64) -> Result<Vec<Product>> {
    let rows = db
        .fetch_all(
            "select sku, name, description, price_minor, currency from product
             order by sku limit $1",
            params![limit],
        )
        .await?;
    rows.iter().map(to_product).collect()
}

/// Adds a product unless it is there.
pub async fn add(tx: &mut Tx, product: &Product) -> Result<()> {
    tx.execute(
        "insert into product (sku, name, description, price_minor, currency)
         values ($1, $2, $3, $4, $5) on conflict (sku) do nothing",
        params![
            product.sku.as_str(),
            product.name.as_str(),
            product.description.as_str(),
            product.price.minor(),
            product.price.currency()
        ],
    )
    .await?;
    Ok(())
}

/// True where no product is known.
pub async fn is_empty(tx: &mut Tx) -> Result<bool> {
    Ok(tx.fetch_optional("select 1 from product limit 1", params![]).await?.is_none())
}

fn to_product(row: &Row) -> Result<Product> {
    let sku = row.text(0)?;
    let broken = |what| Error::internal(format!("product {sku:?} has {what}"));
    Ok(Product {
        sku: Sku::parse(sku).map_err(|_| broken("an impossible sku"))?,
        name: row.text(1)?.to_owned(),
        description: row.text(2)?.to_owned(),
        price: Price::new(row.int(3)?, row.text(4)?).map_err(|_| broken("an impossible price"))?,
    })
}
