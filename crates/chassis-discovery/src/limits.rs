//! One wording for "this setting is out of its range".

use std::fmt::Debug;
use std::ops::RangeInclusive;

use chassis_core::{Error, Result};

/// Refuses a value outside its range; the message names the key, the value and
/// what is allowed.
pub(crate) fn within<T: PartialOrd + Debug>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "INVALID_CONFIG",
        format!("{key} is {value:?}, allowed is {:?} to {:?}", allowed.start(), allowed.end()),
    ))
}
