//! Which names a topic and a group may have.
//!
//! Both become parts of broker addresses. A `*` or `>` in a NATS subject is a
//! wildcard, a space ends a protocol field and a line break ends a protocol
//! line, so a name taken from input could read or write where it should not.
//! A short list of allowed characters is easier to trust than a list of bad
//! ones, and leaves `=` and `:` free for names that brokers derive.

use chassis_core::{Error, Result};

/// The longest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 240;

/// The longest group, in bytes.
pub const MAX_GROUP_BYTES: usize = 64;

/// The first part of the topics of dead letters.
pub(crate) const DEAD_LETTERS: &str = "dlq";

/// Checks a topic: tokens of ASCII letters, digits, `-` and `_`, joined by dots.
///
/// # Errors
///
/// `INVALID_ARGUMENT` with the reason `INVALID_TOPIC`, saying what is wrong.
pub fn validate_topic(topic: &str) -> Result<()> {
    let refuse = |problem: &str| {
        let message = format!("the topic {} {problem}", quoted(topic));
        Err(Error::invalid_argument("INVALID_TOPIC", message))
    };
    if topic.is_empty() {
        return refuse("is empty");
    }
    if topic.len() > MAX_TOPIC_BYTES {
        return refuse("is longer than 240 bytes");
    }
    if topic.split('.').any(str::is_empty) {
        return refuse("has an empty part between its dots");
    }
    match topic.chars().find(|&c| c != '.' && !is_name_char(c)) {
        Some(c) => {
            refuse(&format!("contains {c:?}; allowed are letters, digits, '-', '_' and dots"))
        }
        None => Ok(()),
    }
}

/// Checks a group: one token of ASCII letters, digits, `-` and `_`.
///
/// # Errors
///
/// `INVALID_ARGUMENT` with the reason `INVALID_GROUP`, saying what is wrong.
pub fn validate_group(group: &str) -> Result<()> {
    let refuse = |problem: &str| {
        let message = format!("the group {} {problem}", quoted(group));
        Err(Error::invalid_argument("INVALID_GROUP", message))
    };
    if group.is_empty() {
        return refuse("is empty");
    }
    if group.len() > MAX_GROUP_BYTES {
        return refuse("is longer than 64 bytes");
    }
    match group.chars().find(|&c| !is_name_char(c)) {
        Some(c) => refuse(&format!("contains {c:?}; allowed are letters, digits, '-' and '_'")),
        None => Ok(()),
    }
}

/// The first part of a topic: the context that owns it, and the JetStream
/// stream that keeps it.
#[must_use]
pub fn segment(topic: &str) -> &str {
    topic.split('.').next().unwrap_or(topic)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The name as it may stand in a message and a log line: escaped and cut.
fn quoted(name: &str) -> String {
    let cut: String = name.chars().take(80).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_refused_with_the_reason() {
        let long = "a".repeat(MAX_TOPIC_BYTES + 1);
        for (topic, says) in [
            ("", "is empty"),
            ("a..b", "an empty part"),
            (".a", "an empty part"),
            ("a.", "an empty part"),
            ("a.*", "'*'"),
            ("a.>", "'>'"),
            ("a b", "' '"),
            ("a\r\nPUB b 0", "'\\r'"),
            ("$JS.API", "'$'"),
            ("a/b", "'/'"),
            ("größe", "'ö'"),
            (long.as_str(), "longer than 240"),
        ] {
            let error = validate_topic(topic).unwrap_err();
            assert_eq!(error.reason(), "INVALID_TOPIC", "{topic:?}");
            assert!(error.message().contains(says), "{topic:?}: {error}");
        }
    }

    #[test]
    fn ordinary_topics_pass() {
        for topic in ["greetings", "greetings.said", "dlq.some-group.greetings.said", "A_1"] {
            validate_topic(topic).unwrap();
        }
        assert_eq!(segment("greetings.said"), "greetings");
        assert_eq!(segment("greetings"), "greetings");
    }

    #[test]
    fn a_group_is_one_token() {
        validate_group("some-group_2").unwrap();
        for group in ["", "a.b", "a b", "a*", &"g".repeat(65)] {
            assert_eq!(validate_group(group).unwrap_err().reason(), "INVALID_GROUP");
        }
    }
}
