//! PostgreSQL, natively.

use sqlx::{Postgres, Row as _, TypeInfo, ValueRef, postgres::PgRow};

use super::{backend, unportable};
use crate::{Row, row::Cell};

backend!(Postgres, &["postgres", "postgresql"], decode);

fn decode(row: &PgRow) -> sqlx::Result<Row> {
    (0..row.len()).map(|index| cell(row, index)).collect::<sqlx::Result<_>>().map(Row::new)
}

fn cell(row: &PgRow, index: usize) -> sqlx::Result<Cell> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match raw.type_info().name() {
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "CITEXT" => {
            Cell::Text(row.try_get_unchecked(index)?)
        }
        "INT8" => Cell::Int(row.try_get_unchecked(index)?),
        "INT4" => Cell::Int(row.try_get::<i32, _>(index)?.into()),
        "INT2" => Cell::Int(row.try_get::<i16, _>(index)?.into()),
        "BOOL" => Cell::Int(row.try_get::<bool, _>(index)?.into()),
        "BYTEA" => Cell::Blob(row.try_get_unchecked(index)?),
        other => return Err(unportable(index, other)),
    })
}
