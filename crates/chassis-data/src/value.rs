//! What a statement is given: text, integers and bytes, each of which may be null.
//!
//! These are the types that SQLite, PostgreSQL and `sqlx::Any` all carry without loss. A null
//! has a type too, because PostgreSQL wants to know it. Times are integers (unix
//! milliseconds), amounts are integers (minor units), documents are text.

/// One parameter of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `text`.
    Text(Option<String>),
    /// `bigint`.
    Int(Option<i64>),
    /// `blob` or `bytea`.
    Blob(Option<Vec<u8>>),
}

macro_rules! from {
    ($($type:ty => $variant:ident($convert:expr),)*) => {
        $(
            impl From<$type> for Value {
                fn from(value: $type) -> Value {
                    let convert: fn($type) -> _ = $convert;
                    Value::$variant(Some(convert(value)))
                }
            }

            impl From<Option<$type>> for Value {
                fn from(value: Option<$type>) -> Value {
                    let convert: fn($type) -> _ = $convert;
                    Value::$variant(value.map(convert))
                }
            }
        )*
    };
}

from! {
    &str => Text(str::to_owned),
    &String => Text(String::clone),
    String => Text(|text| text),
    i64 => Int(|number| number),
    i32 => Int(i64::from),
    u32 => Int(i64::from),
    bool => Int(i64::from),
    &[u8] => Blob(<[u8]>::to_vec),
    Vec<u8> => Blob(|bytes| bytes),
}

/// Parameters of a statement, in the order of `$1`, `$2`, …
///
/// Each may be text, an integer, a `bool` (stored as 0 or 1), bytes, or an `Option` of these.
///
/// ```
/// use chassis_data::{Value, params};
///
/// let note: Option<&str> = None;
/// assert_eq!(params!["a-1", 3_i64, note].len(), 3);
/// assert_eq!(params![note], [Value::Text(None)]);
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec::Vec::<$crate::Value>::from([$($crate::Value::from($value)),*])
    };
}
