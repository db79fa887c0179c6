//! A message that cannot be handled, put where somebody can look at it.
//!
//! It keeps its id, key, type, payload and headers; what went wrong stands in
//! headers beside them, so that it can be sent again as it was.

use chassis_core::{Error, unix_ms};

use crate::message::{EDITS, MAX_ATTRIBUTE_BYTES, MAX_HEADERS, Message, REDRIVES, is_header_name};
use crate::topic::DEAD_LETTERS;

/// The reason of the last error, such as `UNDECODABLE_EVENT`.
pub const HEADER_REASON: &str = "dlq-reason";
/// The code of the last error, such as `INVALID_ARGUMENT`.
pub const HEADER_CODE: &str = "dlq-code";
/// The public message of the last error.
pub const HEADER_MESSAGE: &str = "dlq-message";
/// How often the message was delivered.
pub const HEADER_ATTEMPTS: &str = "dlq-attempts";
/// The group that could not handle it.
pub const HEADER_GROUP: &str = "dlq-group";
/// When it was given up, in milliseconds since 1970.
pub const HEADER_DIED_AT: &str = "dlq-died-at";
/// The topic that it came from.
pub const HEADER_ORIGINAL_TOPIC: &str = "dlq-original-topic";
/// The id that it came with.
pub const HEADER_ORIGINAL_ID: &str = "dlq-original-id";
/// When it happened, in milliseconds since 1970.
pub const HEADER_ORIGINAL_TIME: &str = "dlq-original-time";

/// How often the message was sent to its topic again before.
pub const HEADER_REDRIVES: &str = REDRIVES;
/// How often the payload was replaced.
pub const HEADER_EDITS: &str = EDITS;
/// When the payload was replaced last, in milliseconds since 1970.
pub const HEADER_EDITED_AT: &str = "dlq-edited-at";

const OWN_HEADERS: usize = 9;
/// What a message that comes again has beside its first headers: these three, and the
/// group that it is for.
const REDRIVEN_HEADERS: usize = 4;

/// The topic of the dead letters of a group and a topic.
#[must_use]
pub fn dead_letter_topic(group: &str, topic: &str) -> String {
    format!("{DEAD_LETTERS}.{group}.{topic}")
}

/// The dead letter of a message.
pub(crate) fn dead_letter(message: &Message, group: &str, attempts: u32, error: &Error) -> Message {
    let mut letter = message.clone();
    make_storable(&mut letter);
    letter.topic = dead_letter_topic(group, &message.topic);
    for (name, value) in [
        (HEADER_REASON, error.reason().to_owned()),
        (HEADER_CODE, error.code().as_str().to_owned()),
        (HEADER_MESSAGE, error.message().to_owned()),
        (HEADER_ATTEMPTS, attempts.to_string()),
        (HEADER_GROUP, group.to_owned()),
        (HEADER_DIED_AT, unix_ms().to_string()),
        (HEADER_ORIGINAL_TOPIC, message.topic.clone()),
        (HEADER_ORIGINAL_ID, message.id.clone()),
        (HEADER_ORIGINAL_TIME, message.time.to_string()),
    ] {
        letter.headers.insert(name.to_owned(), cut(value, 1024));
    }
    letter
}

/// A message of a foreign publisher may be what no publisher of ours could send;
/// its dead letter must be one that a broker takes.
fn make_storable(message: &mut Message) {
    message.headers.retain(|name, _| is_header_name(name));
    while message.headers.len() > MAX_HEADERS + REDRIVEN_HEADERS {
        message.headers.pop_last();
    }
    for value in message.headers.values_mut() {
        *value = cut(std::mem::take(value), MAX_ATTRIBUTE_BYTES);
    }
    let attributes =
        [&mut message.id, &mut message.source, &mut message.kind, &mut message.content_type];
    for value in attributes.into_iter().chain(&mut message.key) {
        *value = cut(std::mem::take(value), MAX_ATTRIBUTE_BYTES);
    }
    if message.kind.is_empty() {
        message.kind = "unknown".to_owned();
    }
}

/// The beginning of a text, in bytes, without half a character.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

const _: () = assert!(OWN_HEADERS + REDRIVEN_HEADERS <= crate::message::DEAD_LETTER_HEADERS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_message_and_says_why() {
        let message = Message::new("greetings.said", "greeting-said.v1", "hello")
            .with_key("Ada")
            .with_header("traceparent", "00-1-2-01");
        let error = Error::failed_precondition("TOO_LATE", "the party is over");
        let letter = dead_letter(&message, "group", 6, &error);
        letter.validate(1024).unwrap();
        assert_eq!(letter.topic, "dlq.group.greetings.said");
        assert_eq!((&letter.id, &letter.key), (&message.id, &message.key));
        assert_eq!(letter.payload, message.payload);
        for (name, value) in [
            ("traceparent", "00-1-2-01"),
            (HEADER_REASON, "TOO_LATE"),
            (HEADER_CODE, "FAILED_PRECONDITION"),
            (HEADER_MESSAGE, "the party is over"),
            (HEADER_ATTEMPTS, "6"),
            (HEADER_ORIGINAL_TOPIC, "greetings.said"),
            (HEADER_ORIGINAL_ID, message.id.as_str()),
        ] {
            assert_eq!(letter.header(name), Some(value), "{name}");
        }
    }

    #[test]
    fn what_only_a_foreign_publisher_could_send_can_be_buried_too() {
        let mut foreign = Message::new("a", "", vec![0; 900]).with_id("x".repeat(9000));
        foreign.key = Some("ä".repeat(9000));
        for i in 0..100 {
            foreign.headers.insert(format!("bad header {i}"), String::new());
            foreign.headers.insert(format!("h{i}"), "v".repeat(50));
        }
        let letter = dead_letter(&foreign, "group", 1, &Error::internal("x"));
        letter.validate(16 * 1024).unwrap();
    }
}
