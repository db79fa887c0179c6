//! A text that cannot be printed by accident.
//!
//! Its `Debug` and its serialised form are masked; only [`Secret::expose`] gives it away, so
//! that every use can be found. A URL keeps what helps to find a mistake (scheme, host,
//! path, harmless parameters) and loses its user information and all other parameters. What
//! is not a text is refused without being repeated.

use std::{cell::Cell, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

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
#[derive(Clone, Default, PartialEq, Eq)]
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

const MASK: &str = "***";

/// Parameters of a URL that never hold a secret.
const HARMLESS: &[&str] = &["application_name", "cache", "mode", "sslmode"];

fn mask(text: &str) -> String {
    if text.is_empty() || text.starts_with("embedded:") {
        return text.to_owned();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return MASK.to_owned();
    };
    // The last `@` ends the user information, whatever a password before it holds; one behind
    // a `?` may belong to either side.
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(['?', '#']) => return format!("{scheme}://{MASK}"),
        Some((_, place)) => ("***@", place),
        None => ("", rest),
    };
    let (place, parameters) = match place.split_once('?') {
        Some((place, parameters)) => (place, Some(parameters)),
        None => (place, None),
    };
    let lower = place.to_ascii_lowercase();
    if lower.contains('#') || ["pass", "token", "secret", "key="].iter().any(|w| lower.contains(w))
    {
        return format!("{scheme}://{MASK}");
    }
    let mut masked = format!("{scheme}://{user}{place}");
    for (n, parameter) in parameters.into_iter().flat_map(|all| all.split('&')).enumerate() {
        masked.push(if n == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, value)) if HARMLESS.contains(&name) && !value.contains('#') => {
                masked.push_str(parameter);
            }
            Some((name, _)) => masked.extend([name, "=", MASK]),
            None => masked.push_str(MASK),
        }
    }
    masked
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

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // The error of serde would repeat a value of another type.
        String::deserialize(deserializer)
            .map(Secret)
            .map_err(|_| D::Error::custom("a secret is a text, in a file between quotes"))
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
            ("postgres://db/items?password=x", "postgres://db/items?password=***"),
            (
                "postgres://db/items?sslmode=disable&pwd=x",
                "postgres://db/items?sslmode=disable&pwd=***",
            ),
            ("postgres://db/items?pwd=p@ss", "postgres://***"),
            ("postgres://app:p?ss@db/items", "postgres://***"),
            ("postgres://app:p/ss@db/items", "postgres://***@db/items"),
            ("nats://a:1,nats://u:p@b:1", "nats://***@b:1"),
            ("jdbc:db://host;password=x", "jdbc:db://***"),
            ("https://host/path#t0k", "https://***"),
            ("https://host?t0k", "https://host?***"),
        ] {
            let secret = Secret::new(secret);
            assert_eq!(format!("{secret:?}"), shown);
            assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        }
        assert_eq!(revealed(|| serde_json::to_value(Secret::new("x")).unwrap()), "x");
        assert_eq!(serde_json::to_value(Secret::new("x")).unwrap(), "***");
    }

    #[test]
    fn an_error_does_not_repeat_it() {
        for value in ["31337", "[\"hunter2\"]", "{\"hunter2\": 1}"] {
            let error = serde_json::from_str::<Secret>(value).unwrap_err().to_string();
            assert!(error.starts_with("a secret is a text"), "{error}");
            assert!(!error.contains("31337") && !error.contains("hunter2"), "{error}");
        }
    }
}
