//! PostgreSQL, natively.

use sqlx::{Postgres, Row as _, TypeInfo, ValueRef, postgres::PgRow, postgres::types::Oid};

use super::{backend, unportable};
use crate::{Row, row::Cell};

/// The numbers that these types have in every database.
const BYTEA: Oid = Oid(17);
const INT8: Oid = Oid(20);
const TEXT: Oid = Oid(25);

backend!(Postgres, &["postgres", "postgresql"], decode);

fn decode(row: &PgRow) -> sqlx::Result<Row> {
    (0..row.len()).map(|index| cell(row, index)).collect::<sqlx::Result<_>>().map(Row::new)
}

fn cell(row: &PgRow, index: usize) -> sqlx::Result<Cell> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    let kind = raw.type_info();
    // By number what is frequent: a comparison of names for each cell shows in a profile.
    match kind.oid() {
        Some(TEXT) => return Ok(Cell::Text(row.try_get_unchecked(index)?)),
        Some(INT8) => return Ok(Cell::Int(row.try_get_unchecked(index)?)),
        Some(BYTEA) => return Ok(Cell::Blob(row.try_get_unchecked(index)?)),
        _ => {}
    }
    Ok(match kind.name() {
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
