//! Fields whose values nobody should read, whoever logs them.
//!
//! [`Secret`](crate::Secret) is the right way: a type that cannot be printed. This is the net
//! below it, for a value that comes out of a header or a library under a name that tells.

/// The names whose values are hidden.
pub(super) struct Redact {
    names: Vec<String>,
    /// The last letters that they have, a bit for each: the quick no for most fields.
    letters: u32,
}

impl Redact {
    /// What is shown instead.
    pub(super) const SHOWN: &'static str = "[redacted]";

    pub(super) fn new(names: &[String]) -> Redact {
        let letters = names.iter().fold(0, |all, name| all | last_letter(name));
        Redact { names: names.to_vec(), letters }
    }

    /// Whether the values of this field are hidden: its last part behind a dot is one of the
    /// names, in any case, so that `authorization` hides `http.request.header.authorization`.
    pub(super) fn hides(&self, field: &str) -> bool {
        self.letters & last_letter(field) != 0
            && self.names.iter().any(|name| is_last_part(field.as_bytes(), name.as_bytes()))
    }
}

fn is_last_part(field: &[u8], name: &[u8]) -> bool {
    let Some(start) = field.len().checked_sub(name.len()) else { return false };
    (start == 0 || field[start - 1] == b'.') && field[start..].eq_ignore_ascii_case(name)
}

/// The lower five bits of the last byte, which a letter has in either case, as a bit.
fn last_letter(name: &str) -> u32 {
    name.bytes().last().map_or(0, |byte| 1 << (byte & 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_name_decides() {
        let redact = Redact::new(&["authorization".to_owned()]);
        for hidden in ["authorization", "Authorization", "http.request.header.authorization"] {
            assert!(redact.hides(hidden), "{hidden}");
        }
        for shown in ["authorization.kind", "authorized", "preauthorization", "n", ""] {
            assert!(!redact.hides(shown), "{shown}");
        }
    }
}
