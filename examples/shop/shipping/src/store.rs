//! The queries. The SQL runs on SQLite and PostgreSQL.

use chassis::Result;
use chassis::data::{Migrations, Tx, params};

use crate::domain::Parcel;

/// The tables of this service.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new("shipping").step(1, "parcels", include_str!("../migrations/1_parcels.sql"))
}

/// Adds a parcel; false if its order has one already.
pub async fn insert(tx: &mut Tx, parcel: &Parcel, now_ms: i64) -> Result<bool> {
    let inserted = tx
        .execute(
            "insert into parcels (id, order_id, customer_id, pieces, tracking, shipped_at)
             values ($1, $2, $3, $4, $5, $6) on conflict (order_id) do nothing",
            params![
                &*parcel.id,
                &*parcel.order,
                &*parcel.customer,
                parcel.pieces,
                &*parcel.tracking,
                now_ms
            ],
        )
        .await?;
    Ok(inserted == 1)
}
