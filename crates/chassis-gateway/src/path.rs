//! Paths of requests, rewritten without being decoded.
//!
//! A path is compared and cut as it came: decoding and encoding it again would turn `%2F`
//! into a separator, and then the gateway and the service behind it disagree about which
//! resource is meant. For the same reason a path with a dot segment, however it is spelled,
//! is refused: it would be routed by one meaning and served by another.

use std::fmt::Write;

/// How the path of a forwarded request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// As it came.
    Keep,
    /// Without this prefix of whole segments.
    Strip(String),
    /// This template, filled with the captures of the route's pattern.
    Template { pattern: String, template: String },
}

impl Rewrite {
    /// The new path; `None` if the path is not one of the route's.
    pub(crate) fn apply(&self, path: &str) -> Option<String> {
        match self {
            Rewrite::Keep => Some(path.to_owned()),
            Rewrite::Strip(prefix) => {
                let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
                match rest.as_bytes().first() {
                    None => Some("/".to_owned()),
                    Some(b'/') => Some(rest.to_owned()),
                    Some(_) => None,
                }
            }
            Rewrite::Template { pattern, template } => {
                let captures = captures(pattern, path)?;
                fill(template, |name| {
                    captures
                        .iter()
                        .find(|(found, _)| *found == name)
                        .map(|(_, raw)| (*raw).to_owned())
                })
            }
        }
    }
}

impl Rewrite {
    /// The path at the gateway of a path at the service, where only a prefix was cut off. An
    /// absolute or relative reference, and one to another host (`//host`), stays as it is.
    pub(crate) fn restore(&self, location: &str) -> Option<String> {
        match self {
            Rewrite::Strip(prefix) if location.starts_with('/') && !location.starts_with("//") => {
                Some(format!("{}{location}", prefix.trim_end_matches('/')))
            }
            _ => None,
        }
    }
}

/// The names in a pattern such as `/items/{id}/{*rest}`.
pub(crate) fn names(pattern: &str) -> Vec<&str> {
    pattern
        .split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}'))
        .map(|(name, _)| name.trim_start_matches('*'))
        .collect()
}

/// The raw segments that a pattern captures; `None` if the path does not fit.
fn captures<'a>(pattern: &'a str, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut found = Vec::new();
    let mut rest = path;
    for segment in pattern.split('/').skip(1) {
        let tail = rest.strip_prefix('/')?;
        let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        match name {
            Some(name) if name.starts_with('*') => {
                found.push((&name[1..], tail));
                rest = "";
            }
            _ => {
                let end = tail.find('/').unwrap_or(tail.len());
                match name {
                    Some(name) => found.push((name, &tail[..end])),
                    None if tail[..end] == *segment => {}
                    None => return None,
                }
                rest = &tail[end..];
            }
        }
    }
    rest.is_empty().then_some(found)
}

/// A template with each `{name}` replaced; `None` if a name has no value.
pub(crate) fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once('{') {
        let (name, after) = tail.split_once('}')?;
        filled.push_str(before);
        filled.push_str(&value(name.trim_start_matches('*'))?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// A value made safe for one segment or one value of a query: all but RFC 3986's unreserved
/// characters are percent-encoded.
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    // A value that is a dot segment as a whole would move within the path.
    match encoded.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => encoded,
    }
}

/// Whether a path has a segment that means "here" or "up", in any spelling.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    let plain =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    plain.split(['/', '\\']).any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_location_gets_back_the_prefix_that_was_cut_off() {
        let strip = Rewrite::Strip("/api/".to_owned());
        assert_eq!(strip.restore("/items/7?x=1").as_deref(), Some("/api/items/7?x=1"));
        for other in ["//host/items/7", "https://host/items/7", "items/7", ""] {
            assert_eq!(strip.restore(other), None, "{other}");
        }
        assert_eq!(Rewrite::Keep.restore("/items/7"), None);
    }

    #[test]
    fn a_prefix_is_cut_at_a_segment() {
        let strip = Rewrite::Strip("/api".into());
        for (path, expected) in [
            ("/api/items/7", Some("/items/7")),
            ("/api", Some("/")),
            ("/api/", Some("/")),
            ("/apis", None),
            ("/other", None),
        ] {
            assert_eq!(strip.apply(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_template_takes_captures_as_they_came() {
        let rewrite = |pattern: &str, template: &str, path: &str| {
            Rewrite::Template { pattern: pattern.into(), template: template.into() }.apply(path)
        };
        for (pattern, template, path, expected) in [
            ("/a/{id}", "/b/{id}/c", "/a/7", Some("/b/7/c")),
            ("/a/{id}", "/b/{id}", "/a/x%2Fy", Some("/b/x%2Fy")),
            ("/a/{*rest}", "/{*rest}", "/a/b/c%20d", Some("/b/c%20d")),
            ("/a/{x}/{y}", "/{y}/{x}", "/a/1/2", Some("/2/1")),
            ("/a/{id}", "/b/{id}", "/a/7/8", None),
            ("/a/{id}", "/b/{id}", "/c/7", None),
        ] {
            assert_eq!(rewrite(pattern, template, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for path in [
            "/a/../b",
            "/..",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a/..%2fb",
            "/a/..%5Cb",
            "/a\\..\\b",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["/a/b", "/", "/a/...", "/a/..b", "/a/b.c", "/.well-known/x", "/a%2Fb"] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_value_stays_in_its_segment(value in any::<String>()) {
            let encoded = encode(&value);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert!(encoded != "." && encoded != "..");
        }

        #[test]
        fn no_path_makes_a_rewrite_fail(path in "/[a-z/%{}*.]{0,20}") {
            let rewrite = Rewrite::Template { pattern: "/a/{id}".into(), template: "/{id}".into() };
            if let Some(new) = rewrite.apply(&path) {
                prop_assert_eq!(path, format!("/a{new}"));
            }
        }
    }
}
