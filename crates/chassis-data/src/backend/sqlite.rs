//! SQLite, natively.
//!
//! SQLite types values, not columns, so each value is asked.

use sqlx::{Row as _, Sqlite, TypeInfo, ValueRef, sqlite::SqliteRow};

use super::{backend, unportable};
use crate::{Row, row::Cell};

backend!(Sqlite, &["sqlite"], decode);

fn decode(row: &SqliteRow) -> sqlx::Result<Row> {
    (0..row.len()).map(|index| cell(row, index)).collect::<sqlx::Result<_>>().map(Row::new)
}

fn cell(row: &SqliteRow, index: usize) -> sqlx::Result<Cell> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match raw.type_info().name() {
        "TEXT" => Cell::Text(row.try_get(index)?),
        "INTEGER" | "BOOLEAN" => Cell::Int(row.try_get_unchecked(index)?),
        "BLOB" => Cell::Blob(row.try_get(index)?),
        other => return Err(unportable(index, other)),
    })
}
