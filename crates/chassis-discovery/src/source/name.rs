//! Names that may stand in a key, a path or a subject of any registry.

use chassis_core::{Error, Result};

use crate::Target;

/// How long a name may be, in bytes.
const MAX_BYTES: usize = 128;

/// Refuses a target whose name a registry could misread.
pub(crate) fn check_name(target: &Target) -> Result<()> {
    for name in [&target.service, &target.protocol] {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
        if name.is_empty() || name.len() > MAX_BYTES || dots || !name.bytes().all(good) {
            return Err(Error::invalid_argument(
                "INVALID_NAME",
                format!(
                    "`{name}` cannot be looked up: 1 to {MAX_BYTES} letters, digits, `-`, `_`, \
                     and `.` inside"
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str| check_name(&Target::new(name, "http"));
        for good in ["greeter", "a.b-c_d", "X9"] {
            check(good).unwrap();
        }
        for bad in ["", "a b", "a/b", "*", ">", ".a", "a.", "a..b", "ä", &"x".repeat(129)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
