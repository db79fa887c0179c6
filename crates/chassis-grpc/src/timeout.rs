//! The `grpc-timeout` header: how much time is left, as the wire says it.
//!
//! Source: gRPC over HTTP/2, "Timeout → TimeoutValue TimeoutUnit": at most eight
//! digits and one unit.

use std::time::Duration;

/// The header's name.
pub(crate) const HEADER: &str = "grpc-timeout";

const MAX_VALUE: u128 = 99_999_999;

/// Nanoseconds of each unit, finest first.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// Reads a header; `None` if it is malformed, and then it counts as absent.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let seconds = |each: u64| Duration::from_secs(value * each);
    match unit {
        "n" => Some(Duration::from_nanos(value)),
        "u" => Some(Duration::from_micros(value)),
        "m" => Some(Duration::from_millis(value)),
        "S" => Some(seconds(1)),
        "M" => Some(seconds(60)),
        "H" => Some(seconds(3600)),
        _ => None,
    }
}

/// Writes a header in the finest unit that fits. Rounds down: the server must
/// not think that there is more time than there is.
pub(crate) fn format(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    for (unit, each) in UNITS {
        if nanos / each <= MAX_VALUE {
            return format!("{}{unit}", nanos / each);
        }
    }
    format!("{MAX_VALUE}H")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_the_specification() {
        let cases = [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("300m", Duration::from_millis(300)),
            ("4S", Duration::from_secs(4)),
            ("5M", Duration::from_secs(300)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        for text in ["", "S", "1", "1s", "123456789m", "-1S", "+1S", "1.5S", " 1S", "1é"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_a_little_shorter_at_most(nanos in any::<u64>()) {
            let sent = Duration::from_nanos(nanos);
            let text = format(sent);
            let read = parse(&text).unwrap();
            prop_assert!(read <= sent);
            prop_assert!((sent - read).as_secs_f64() <= sent.as_secs_f64() * 1e-5 + 1e-9);
        }
    }
}
