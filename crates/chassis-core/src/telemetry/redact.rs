//! Fields whose values nobody should read, whoever logs them.
//!
//! [`Secret`](crate::Secret) is the right way: a type that cannot be printed. This is the net
//! below it, for a value that comes out of a header or a library under a name that tells.

/// The names whose values are hidden.
pub(super) struct Redact(Vec<String>);

impl Redact {
    /// What is shown instead.
    pub(super) const SHOWN: &'static str = "[redacted]";

    pub(super) fn new(names: &[String]) -> Redact {
        Redact(names.to_vec())
    }

    /// Whether the values of this field are hidden: its last part behind a dot is one of the
    /// names, in any case, so that `authorization` hides `http.request.header.authorization`.
    pub(super) fn hides(&self, field: &str) -> bool {
        let last = field.rsplit('.').next().unwrap_or(field);
        self.0.iter().any(|name| name.eq_ignore_ascii_case(last))
    }
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
        for shown in ["authorization.kind", "authorized", ""] {
            assert!(!redact.hides(shown), "{shown}");
        }
    }
}
