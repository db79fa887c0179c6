//! Durations in settings, as text with units: `250ms`, `30s`, `5m`.
//!
//! A bare number would leave the reader to guess the unit, so it is refused.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Writes a duration such as `1m 30s`.
///
/// # Errors
/// Only the serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration such as `250ms`, `30s` or `1m 30s`.
///
/// # Errors
/// Text that is not a number with a unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!("`{text}` is not a duration such as 250ms, 30s or 5m: {error}"))
    })
}
