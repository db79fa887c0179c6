//! A text that cannot be printed by accident.
//!
//! Its `Debug` and its serialised form are masked; only [`Secret::expose`] gives it away, so
//! that every use can be found. A URL keeps what helps to find a mistake (scheme, host,
//! path) and loses its user information.

use std::{cell::Cell, fmt};

use serde::{Deserialize, Serialize, Serializer};

thread_local! {
    /// Set while the loader serialises defaults that it will read back.
    static REVEAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with secrets serialised in clear, on this thread only.
pub(super) fn revealed<T>(f: impl FnOnce() -> T) -> T {
    struct Hide;
    impl Drop for Hide {
        fn drop(&mut self) {
            REVEAL.set(false);
        }
    }
    let _hide = Hide;
    REVEAL.set(true);
    f()
}

/// A secret text, such as a password or a URL that holds one.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with everything secret replaced by `***`.
    #[must_use]
    pub fn masked(&self) -> String {
        mask(&self.0)
    }
}

fn mask(text: &str) -> String {
    const MASK: &str = "***";
    if text.is_empty() {
        return String::new();
    }
    let lower = text.to_ascii_lowercase();
    let suspicious = ["pass", "token", "secret", "key="].iter().any(|word| lower.contains(word));
    match text.split_once("://") {
        Some((scheme, rest)) if !suspicious => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{MASK}@{host}"),
            None => text.to_owned(),
        },
        _ if text.starts_with("embedded:") => text.to_owned(),
        _ => MASK.to_owned(),
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if REVEAL.get() {
            serializer.serialize_str(&self.0)
        } else {
            serializer.serialize_str(&self.masked())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_masked_wherever_it_is_printed() {
        for (secret, shown) in [
            ("", ""),
            ("hunter2", "***"),
            ("postgres://app:hunter2@db:5432/items", "postgres://***@db:5432/items"),
            ("postgres://app:p@ss@db/items", "postgres://***@db/items"),
            ("nats://t0ken@host", "nats://***@host"),
            ("sqlite://data/items.db?mode=rwc", "sqlite://data/items.db?mode=rwc"),
            ("postgres://db/items?password=x", "***"),
        ] {
            let secret = Secret::new(secret);
            assert_eq!(format!("{secret:?}"), shown);
            assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        }
        assert_eq!(revealed(|| serde_json::to_value(Secret::new("x")).unwrap()), "x");
        assert_eq!(serde_json::to_value(Secret::new("x")).unwrap(), "***");
    }
}
