//! What a query answers: a row whose columns are read by position.
//!
//! A row is decoded as a whole when it arrives, so that it borrows nothing from the
//! connection and is the same type for every backend.

use std::fmt;

use chassis_core::{Error, Result};

/// One column of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cell {
    #[default]
    Null,
    Text(String),
    Int(i64),
    Blob(Vec<u8>),
}

impl Cell {
    fn kind(&self) -> &'static str {
        match self {
            Cell::Null => "null",
            Cell::Text(_) => "text",
            Cell::Int(_) => "an integer",
            Cell::Blob(_) => "bytes",
        }
    }
}

/// A row of an answer. Columns are counted from zero, in the order of the select list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<Cell>);

macro_rules! getters {
    ($($what:literal $name:ident $optional:ident $variant:ident $type:ty, $convert:expr;)*) => {
        $(
            #[doc = concat!("The ", $what, " in a column that is never null.")]
            ///
            /// # Errors
            /// `Internal` if the column is missing, null, or of another type: the statement
            /// and the code that reads its answer do not fit.
            pub fn $name(&self, index: usize) -> Result<$type> {
                self.$optional(index)?
                    .ok_or_else(|| self.mismatch(index, $what))
            }

            #[doc = concat!("The ", $what, " in a column that may be null.")]
            ///
            /// # Errors
            /// `Internal` if the column is missing or of another type.
            pub fn $optional(&self, index: usize) -> Result<Option<$type>> {
                match self.0.get(index) {
                    Some(Cell::Null) => Ok(None),
                    Some(Cell::$variant(value)) => {
                        let convert: fn(&_) -> $type = $convert;
                        Ok(Some(convert(value)))
                    }
                    _ => Err(self.mismatch(index, $what)),
                }
            }
        )*
    };
}

impl Row {
    pub(crate) fn new(cells: Vec<Cell>) -> Row {
        Row(cells)
    }

    getters! {
        "text" text opt_text Text &str, |text: &String| text.as_str();
        "integer" int opt_int Int i64, |number: &i64| *number;
        "bytes" blob opt_blob Blob &[u8], |bytes: &Vec<u8>| bytes.as_slice();
    }

    /// The text in a column that may be null, which is null from then on: not copied.
    ///
    /// # Errors
    /// `Internal` if the column is missing or of another type.
    pub fn take_opt_text(&mut self, index: usize) -> Result<Option<String>> {
        match self.0.get_mut(index).map(std::mem::take) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => Ok(Some(text)),
            other => Err(self.put_back(index, "text", other)),
        }
    }

    /// The text in a column that is never null. See [`take_opt_text`](Row::take_opt_text).
    ///
    /// # Errors
    /// `Internal` if the column is missing, null, or of another type.
    pub fn take_text(&mut self, index: usize) -> Result<String> {
        self.take_opt_text(index)?.ok_or_else(|| self.mismatch(index, "text"))
    }

    /// The bytes in a column that is never null, which is null from then on: not copied.
    ///
    /// # Errors
    /// `Internal` if the column is missing, null, or of another type.
    pub fn take_blob(&mut self, index: usize) -> Result<Vec<u8>> {
        match self.0.get_mut(index).map(std::mem::take) {
            Some(Cell::Blob(bytes)) => Ok(bytes),
            other => Err(self.put_back(index, "bytes", other)),
        }
    }

    fn put_back(&mut self, index: usize, expected: &'static str, cell: Option<Cell>) -> Error {
        if let (Some(place), Some(cell)) = (self.0.get_mut(index), cell) {
            *place = cell;
        }
        self.mismatch(index, expected)
    }

    fn mismatch(&self, index: usize, expected: &'static str) -> Error {
        let found = self.0.get(index).map_or("no such column", Cell::kind);
        Error::internal(ColumnMismatch { index, expected, found })
    }
}

/// A column does not hold what the code expects.
#[derive(Debug)]
struct ColumnMismatch {
    index: usize,
    expected: &'static str,
    found: &'static str,
}

impl fmt::Display for ColumnMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: expected {}, found {}", self.index, self.expected, self.found)
    }
}

impl std::error::Error for ColumnMismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_gives_what_it_holds_and_names_what_it_does_not() {
        let row = Row::new(vec![Cell::Text("a".into()), Cell::Int(7), Cell::Null]);
        assert_eq!(row.text(0).unwrap(), "a");
        assert_eq!(row.int(1).unwrap(), 7);
        assert_eq!(row.opt_blob(2).unwrap(), None);
        assert_eq!(row.opt_text(2).unwrap(), None);
        let mut taken = row.clone();
        assert_eq!(taken.take_text(0).unwrap(), "a");
        assert!(taken.take_text(0).is_err(), "it is gone");
        assert!(taken.take_blob(1).is_err());
        assert_eq!((taken.int(1).unwrap(), taken.take_opt_text(2).unwrap()), (7, None));
        for (result, expected) in [
            (row.int(0).map(drop), "internal error: column 0: expected integer, found text"),
            (row.text(2).map(drop), "internal error: column 2: expected text, found null"),
            (
                row.opt_int(3).map(drop),
                "internal error: column 3: expected integer, found no such column",
            ),
        ] {
            assert_eq!(result.unwrap_err().chain(), expected);
        }
    }
}
