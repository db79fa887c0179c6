//! A dead letter as somebody looks at it, and as it becomes a message again.

use std::collections::BTreeMap;

use bytes::Bytes;
use chassis_core::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use crate::broker::Stored;
use crate::consumer::{
    HEADER_ATTEMPTS, HEADER_CODE, HEADER_DIED_AT, HEADER_EDITED_AT, HEADER_EDITS, HEADER_GROUP,
    HEADER_MESSAGE, HEADER_ORIGINAL_ID, HEADER_ORIGINAL_TIME, HEADER_ORIGINAL_TOPIC, HEADER_REASON,
    HEADER_REDRIVES, dead_letter_topic,
};
use crate::message::Message;

/// What goes from the headers when a message is sent again: it is about its death.
const OF_THE_DEAD: [&str; 8] = [
    HEADER_REASON,
    HEADER_CODE,
    HEADER_MESSAGE,
    HEADER_ATTEMPTS,
    HEADER_DIED_AT,
    HEADER_ORIGINAL_TOPIC,
    HEADER_ORIGINAL_ID,
    HEADER_ORIGINAL_TIME,
];

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Where it is stored, which is its number for whoever wants to do something
    /// about it.
    pub position: u64,
    /// The id of the message.
    pub id: String,
    /// The topic that it came from.
    pub topic: String,
    /// The versioned type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its key.
    pub key: Option<String>,
    /// The reason of the last error.
    pub reason: String,
    /// The code of the last error.
    pub code: String,
    /// The public message of the last error.
    pub message: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was given up, in milliseconds since 1970.
    pub died_at: i64,
    /// How often it was redriven before.
    pub redrives: u32,
    /// How often its payload was replaced.
    pub edits: u32,
    /// The size of the payload, in bytes.
    pub bytes: usize,
}

/// Dead letters, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letters {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// From which position to go on; `None` where there are no more.
    pub next: Option<u64>,
}

/// A dead letter with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// What a list shows.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Who said it.
    pub source: String,
    /// When it happened, in milliseconds since 1970.
    pub time: i64,
    /// The media type of the payload.
    pub content_type: String,
    /// All headers.
    pub headers: BTreeMap<String, String>,
    /// The payload: as JSON where it is some, else as text, with a mark for each byte
    /// that is none.
    pub payload: Value,
}

/// Which dead letters. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The topic that they came from.
    pub topic: Option<String>,
    /// The reason of the last error.
    pub reason: Option<String>,
    /// The id of the message.
    pub id: Option<String>,
}

impl Filter {
    pub(super) fn fits(&self, letter: &DeadLetter) -> bool {
        let fits = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        fits(&self.topic, &letter.topic)
            && fits(&self.reason, &letter.reason)
            && fits(&self.id, &letter.id)
    }
}

impl DeadLetter {
    pub(super) fn of(stored: &Stored, group: &str) -> DeadLetter {
        let Stored { position, message } = stored;
        let text = |name| message.header(name).unwrap_or_default().to_owned();
        DeadLetter {
            position: *position,
            id: message.id.clone(),
            topic: original_topic(message, group),
            kind: message.kind.clone(),
            key: message.key.clone(),
            reason: text(HEADER_REASON),
            code: text(HEADER_CODE),
            message: text(HEADER_MESSAGE),
            attempts: count(message, HEADER_ATTEMPTS),
            died_at: text(HEADER_DIED_AT).parse().unwrap_or(0),
            redrives: count(message, HEADER_REDRIVES),
            edits: count(message, HEADER_EDITS),
            bytes: message.payload.len(),
        }
    }
}

impl Opened {
    pub(super) fn of(stored: Stored, group: &str) -> Opened {
        let letter = DeadLetter::of(&stored, group);
        let Message { source, time, content_type, headers, payload, .. } = stored.message;
        let payload = serde_json::from_slice(&payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(&payload).into_owned().into());
        Opened { letter, source, time, content_type, headers, payload }
    }
}

/// The message as it goes back to its topic.
pub(super) fn redriven(mut letter: Message, group: &str) -> Message {
    letter.topic = original_topic(&letter, group);
    for name in OF_THE_DEAD {
        letter.headers.remove(name);
    }
    let redrives = count(&letter, HEADER_REDRIVES).saturating_add(1);
    letter.with_header(HEADER_REDRIVES, redrives.to_string()).with_header(HEADER_GROUP, group)
}

/// The dead letter with another payload.
pub(super) fn edited(letter: Message, payload: Bytes, now: i64) -> Result<Message> {
    if is_json(&letter.content_type)
        && let Err(source) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload)
    {
        let message = format!("the message is {}, the new payload is not", letter.content_type);
        return Err(Error::invalid_argument("PAYLOAD_NOT_JSON", message).with_source(source));
    }
    let edits = count(&letter, HEADER_EDITS).saturating_add(1);
    let letter = Message { payload, ..letter };
    Ok(letter
        .with_header(HEADER_EDITS, edits.to_string())
        .with_header(HEADER_EDITED_AT, now.to_string()))
}

/// Whether a message was sent again for a group that is not this one.
pub(crate) fn is_for_another_group(message: &Message, group: &str) -> bool {
    message.header(HEADER_REDRIVES).is_some()
        && message.header(HEADER_GROUP).is_some_and(|wanted| wanted != group)
}

/// By the topic of the letter rather than by its header, which anybody may write.
fn original_topic(letter: &Message, group: &str) -> String {
    let prefix = dead_letter_topic(group, "");
    letter.topic.strip_prefix(&prefix).unwrap_or(&letter.topic).to_owned()
}

fn count(message: &Message, name: &str) -> u32 {
    message.header(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::dead_letter;
    use crate::message::MAX_HEADERS;

    const MAX_BYTES: usize = 1000;

    fn died(message: &Message) -> Message {
        dead_letter(message, "group", 3, &Error::not_found("NOBODY", "nobody is there"))
    }

    #[test]
    fn redriving_undoes_the_death() {
        let message = Message::new("greetings.said", "greeting-said.v1", "hello")
            .with_key("Ada")
            .with_header("tenant", "blue");
        let again = redriven(died(&message), "group");
        assert_eq!(
            (&again.id, &again.topic, again.time),
            (&message.id, &message.topic, message.time)
        );
        let expected = [("dlq-group", "group"), ("dlq-redrives", "1"), ("tenant", "blue")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(again.headers, expected.into());
        assert_ne!(again.edition(), message.edition());
        let twice = redriven(died(&again), "group");
        assert_eq!(twice.header("dlq-redrives"), Some("2"));
        assert_ne!(died(&again).edition(), died(&message).edition());
    }

    #[test]
    fn it_goes_to_the_group_that_gave_it_up() {
        let message = Message::new("a", "t.v1", "x");
        assert!(!is_for_another_group(&message, "other"));
        let again = redriven(died(&message), "group");
        assert!(is_for_another_group(&again, "other"));
        assert!(!is_for_another_group(&again, "group"));
    }

    #[test]
    fn a_message_at_its_limits_survives_any_number_of_deaths() {
        let mut message = Message::new("a", "t.v1", "").with_id("1");
        for n in 0..MAX_HEADERS {
            message = message.with_header(&format!("own-{n}"), "");
        }
        message.payload = vec![b'x'; MAX_BYTES - message.size()].into();
        message.validate(MAX_BYTES).unwrap();
        let own = message.headers.clone();
        for _ in 0..5 {
            let letter = edited(died(&message), message.payload.clone(), 0).unwrap();
            letter.validate(MAX_BYTES).unwrap();
            message = redriven(letter, "group");
            message.validate(MAX_BYTES).unwrap();
        }
        assert!(own.keys().all(|name| message.headers.contains_key(name)));
    }

    #[test]
    fn json_stays_json() {
        let mut message = Message::new("a", "t.v1", "{");
        assert_eq!(edited(message.clone(), "{{".into(), 7).unwrap().payload, "{{");
        for content_type in ["application/json; charset=utf-8", "application/problem+json"] {
            message.content_type = content_type.to_owned();
            let error = edited(message.clone(), "{{".into(), 7).unwrap_err();
            assert_eq!(error.reason(), "PAYLOAD_NOT_JSON");
            let edited = edited(message.clone(), "{}".into(), 7).unwrap();
            assert_eq!(edited.header("dlq-edits"), Some("1"));
            assert_eq!(edited.header("dlq-edited-at"), Some("7"));
        }
    }
}
