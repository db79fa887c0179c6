//! The queries. The SQL runs on SQLite and PostgreSQL.

use chassis::Result;
use chassis::core::unix_ms;
use chassis::data::{Db, Migrations, Row, Tx, params};

use crate::domain::Happened;

/// The most news that a list shows.
pub const MAX_NEWS: i64 = 500;

/// The tables of this service.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new("notification").step(1, "news", include_str!("../migrations/1_news.sql"))
}

/// What a customer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which kind of news.
    pub kind: String,
    /// What the customer reads.
    pub text: String,
    /// The order that it is about.
    pub order: String,
    /// When, in unix ms.
    pub told_at: i64,
}

/// Keeps one piece of news, once.
pub async fn insert(tx: &mut Tx, customer: &str, order: &str, happened: &Happened) -> Result<()> {
    tx.execute(
        "insert into news (customer_id, order_id, kind, body, told_at)
         values ($1, $2, $3, $4, $5) on conflict (customer_id, order_id, kind) do nothing",
        params![customer, order, happened.kind(), happened.text(), unix_ms()],
    )
    .await?;
    Ok(())
}

/// The newest news of a customer, of one order or of all, at most [`MAX_NEWS`], newest first. What
/// came within one millisecond stands in the order of the alphabet reversed, which is that of an
/// order's life: a parcel is shipped after the order is confirmed.
pub async fn of_customer(db: &Db, customer: &str, order: Option<&str>) -> Result<Vec<News>> {
    let rows = match order {
        None => {
            db.fetch_all(
                "select kind, body, order_id, told_at from news
                 where customer_id = $1 order by told_at desc, order_id desc, kind desc limit $2",
                params![customer, MAX_NEWS],
            )
            .await?
        }
        Some(order) => {
            db.fetch_all(
                "select kind, body, order_id, told_at from news
                 where customer_id = $1 and order_id = $2 order by told_at desc, kind desc limit $3",
                params![customer, order, MAX_NEWS],
            )
            .await?
        }
    };
    rows.iter().map(news).collect()
}

fn news(row: &Row) -> Result<News> {
    Ok(News {
        kind: row.text(0)?.to_owned(),
        text: row.text(1)?.to_owned(),
        order: row.text(2)?.to_owned(),
        told_at: row.int(3)?,
    })
}
