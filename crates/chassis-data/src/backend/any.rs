//! PostgreSQL or SQLite, by the scheme of the URL.

use sqlx::{
    Any, Row as _, TypeInfo, ValueRef,
    any::{AnyRow, AnyTypeInfoKind},
};

use super::{backend, unportable};
use crate::{Row, row::Cell};

backend!(Any, &["postgres", "postgresql", "sqlite"], decode);

fn decode(row: &AnyRow) -> sqlx::Result<Row> {
    (0..row.len()).map(|index| cell(row, index)).collect::<sqlx::Result<_>>().map(Row::new)
}

fn cell(row: &AnyRow, index: usize) -> sqlx::Result<Cell> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    let type_info = raw.type_info();
    Ok(match type_info.kind() {
        AnyTypeInfoKind::Text => Cell::Text(row.try_get(index)?),
        AnyTypeInfoKind::SmallInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::BigInt => {
            Cell::Int(row.try_get(index)?)
        }
        AnyTypeInfoKind::Bool => Cell::Int(row.try_get::<bool, _>(index)?.into()),
        AnyTypeInfoKind::Blob => Cell::Blob(row.try_get(index)?),
        AnyTypeInfoKind::Null => Cell::Null,
        AnyTypeInfoKind::Real | AnyTypeInfoKind::Double => {
            return Err(unportable(index, type_info.name()));
        }
    })
}
