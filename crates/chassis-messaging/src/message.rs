//! What travels: a payload with the attributes of a CloudEvent.
//!
//! CloudEvents 1.0 names the attributes (id, source, type, time), so that a
//! reader in another language or a tool finds what it expects. The broker never
//! looks into the payload, and a message is the same on each broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use chassis_core::{Code, Context, Error, Result, propagation, unix_ms};
use uuid::Uuid;

use crate::topic::{DEAD_LETTERS, segment, validate_topic};

/// The most own headers that a message may have.
pub const MAX_HEADERS: usize = 64;

/// The longest value of id, source, type, key, content type and a header, in
/// bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 4096;

/// How many headers more a dead letter may have, and how many bytes more: what
/// was accepted once must find a place among the dead letters, reasons included.
pub(crate) const DEAD_LETTER_HEADERS: usize = 16;
pub(crate) const DEAD_LETTER_BYTES: usize = 16 * 1024;

/// Headers of a message that was sent again out of the dead letters: how often, and how
/// often its payload was replaced meanwhile.
pub(crate) const REDRIVES: &str = "dlq-redrives";
pub(crate) const EDITS: &str = "dlq-edits";

/// The span that appended the message, where its trace is sampled: the trace goes on
/// below the publish, so that this one would not be known any more.
pub(crate) const APPENDED_BY: &str = "x-appended-by";

/// Names the message that was appended before this one, under the same key and topic:
/// `<unix milliseconds> <id>`. Empty for the first one, and until an outbox fills it in.
pub(crate) const PREVIOUS: &str = "x-previous";

/// Names a message that will not come, for those who wait for it: an outbox gave it up. The
/// message with this header has no other content.
pub(crate) const GIVEN_UP: &str = "x-given-up";
/// The type of a message with that header.
pub(crate) const GIVEN_UP_TYPE: &str = "chassis-given-up.v1";

/// The longest id of a message that is to be handled in turn: its successor names it.
pub(crate) const MAX_NAMED_ID_BYTES: usize = 1024;

/// The message that comes before another one of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous<'a> {
    /// When it was appended, in milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) id: &'a str,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Unique for the topic: publishing the same id again is harmless while the
    /// broker remembers it. A UUIDv7 unless the publisher chose another.
    pub id: String,
    /// Who said it: the name of a service.
    pub source: String,
    /// The CloudEvents type with its version, such as `"greeting-said.v1"`.
    pub kind: String,
    /// Where it goes, such as `"greetings.said"`.
    pub topic: String,
    /// What must stay in order, or `None`.
    pub key: Option<String>,
    /// When it happened, in milliseconds since 1970.
    pub time: i64,
    /// The media type of the payload.
    pub content_type: String,
    /// Own headers: trace context, tenant. Names are lower case.
    pub headers: BTreeMap<String, String>,
    /// The content.
    pub payload: Bytes,
}

impl Message {
    /// A message under a new id, at this moment, without key and headers.
    #[must_use]
    pub fn new(
        topic: impl Into<String>,
        kind: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Message {
        Message {
            id: Uuid::now_v7().to_string(),
            source: String::new(),
            kind: kind.into(),
            topic: topic.into(),
            key: None,
            time: unix_ms(),
            content_type: "application/octet-stream".to_owned(),
            headers: BTreeMap::new(),
            payload: payload.into(),
        }
    }

    /// The same message under the given id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Message {
        self.id = id.into();
        self
    }

    /// The same message with the given key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Message {
        self.key = Some(key.into());
        self
    }

    /// The same message with one more header; the name becomes lower case.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Message {
        self.headers.insert(name.to_ascii_lowercase(), value.into());
        self
    }

    /// The same message, to be handled in turn by those who [ask for
    /// that](crate::Consumer::in_turn): an outbox writes into it which message of its key
    /// and topic comes before it. Without a key, or where it does not come out of an
    /// outbox, that changes nothing. See [`Event::IN_TURN`](crate::Event::IN_TURN).
    #[must_use]
    pub fn in_turn(self) -> Message {
        self.with_header(PREVIOUS, "")
    }

    /// Whether it has a place among the messages of its key.
    pub(crate) fn has_turn(&self) -> bool {
        self.headers.contains_key(PREVIOUS)
    }

    /// The key among whose messages a broker keeps its order. None for one that says only
    /// that another will not come: those that wait for that one may stand before it, so it
    /// must not stand behind them; who takes it looks at its turn.
    pub(crate) fn line(&self) -> Option<&str> {
        if self.headers.contains_key(GIVEN_UP) { None } else { self.key.as_deref() }
    }

    /// What comes before it, where it has a place and is not the first.
    pub(crate) fn previous(&self) -> Option<Previous<'_>> {
        let (at, id) = self.header(PREVIOUS)?.split_once(' ')?;
        Some(Previous { at: at.parse().ok()?, id }).filter(|previous| previous.id != self.id)
    }

    /// Writes the trace and the request id of `context` into the headers, so
    /// that the handler goes on with the trace.
    #[must_use]
    pub fn with_context(mut self, context: &Context) -> Message {
        propagation::inject(context, |name, value| {
            self.headers.insert(name.to_owned(), value.to_owned());
        });
        self
    }

    /// A header's value; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What tells this message from an earlier one under the same id, where it came
    /// out of the dead letters. It keeps its id for the inboxes; a broker that drops
    /// repetitions must not take it for one.
    pub(crate) fn edition(&self) -> Option<String> {
        let count = |name| self.header(name).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let (redrives, edits) = (count(REDRIVES), count(EDITS));
        (redrives > 0 || edits > 0).then(|| format!("r{redrives}e{edits}"))
    }

    /// What the message counts against a size limit: payload, attributes and
    /// headers, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let attributes = self.id.len()
            + self.source.len()
            + self.kind.len()
            + self.topic.len()
            + self.key.as_deref().map_or(0, str::len)
            + self.content_type.len();
        self.payload.len() + attributes + headers
    }

    /// Checks what each broker refuses, so that all refuse the same.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` with the reason `INVALID_TOPIC`, `INVALID_MESSAGE` or
    /// `MESSAGE_TOO_LARGE` (the message's [`size`](Message::size) is over
    /// `max_bytes`).
    pub fn validate(&self, max_bytes: usize) -> Result<()> {
        validate_topic(&self.topic)?;
        let dead = segment(&self.topic) == DEAD_LETTERS || self.edition().is_some();
        let (more_bytes, more_headers) =
            if dead { (DEAD_LETTER_BYTES, DEAD_LETTER_HEADERS) } else { (0, 0) };
        let size = self.size();
        if size > max_bytes.saturating_add(more_bytes) {
            let message = format!("the message has {size} bytes, the limit is {max_bytes}");
            return Err(Error::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE", message));
        }
        if self.id.is_empty() {
            return Err(invalid("the message has no id"));
        }
        if self.kind.is_empty() {
            return Err(invalid("the message has no type"));
        }
        if self.headers.len() > MAX_HEADERS + more_headers {
            return Err(invalid("the message has more than 64 headers"));
        }
        let attributes =
            [&self.id, &self.source, &self.kind, &self.content_type].into_iter().chain(&self.key);
        if attributes.chain(self.headers.values()).any(|value| value.len() > MAX_ATTRIBUTE_BYTES) {
            return Err(invalid("an attribute or a header has more than 4096 bytes"));
        }
        match self.headers.keys().find(|name| !is_header_name(name)) {
            Some(name) => Err(invalid(format!("the header name {name:?} is not allowed"))),
            None => Ok(()),
        }
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid_argument("INVALID_MESSAGE", message)
}

/// `ce-` and `nats-` belong to the transport; `content-type` is an attribute.
pub(crate) fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(token)
        && !name.starts_with("ce-")
        && !name.starts_with("nats-")
        && name != "content-type"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::new("greetings.said", "greeting-said.v1", "hello")
    }

    #[test]
    fn ids_are_new_and_in_time_order() {
        let (first, second) = (message(), message());
        assert!(first.id < second.id);
        assert!(first.time > 1_600_000_000_000);
    }

    #[test]
    fn what_a_broker_cannot_carry_is_refused() {
        let ok = message().with_header("X-Tenant", "blue");
        ok.validate(1024).unwrap();
        assert_eq!(ok.header("x-tenant"), Some("blue"));
        let many = (0..=MAX_HEADERS).fold(message(), |m, i| m.with_header(&format!("h{i}"), ""));
        for (bad, reason) in [
            (message().with_id(""), "INVALID_MESSAGE"),
            (message().with_id("x".repeat(5000)), "INVALID_MESSAGE"),
            (message().with_header("ce-id", "1"), "INVALID_MESSAGE"),
            (message().with_header("nats-msg-id", "1"), "INVALID_MESSAGE"),
            (message().with_header("a b", "1"), "INVALID_MESSAGE"),
            (many, "INVALID_MESSAGE"),
            (Message::new("a", "", "x"), "INVALID_MESSAGE"),
            (Message::new("a.*", "t.v1", "x"), "INVALID_TOPIC"),
            (Message::new("a", "t.v1", vec![0; 20_000]), "MESSAGE_TOO_LARGE"),
        ] {
            assert_eq!(bad.validate(16_384).unwrap_err().reason(), reason, "{bad:?}");
        }
    }

    #[test]
    fn what_comes_before_is_read_where_it_stands() {
        let first = message().in_turn();
        assert!(first.has_turn() && first.previous().is_none());
        assert!(!message().has_turn());
        let second = message().with_header(PREVIOUS, "1700000000000 an id");
        assert_eq!(second.previous(), Some(Previous { at: 1_700_000_000_000, id: "an id" }));
        for foreign in ["x", "x y", "17"] {
            assert_eq!(message().with_header(PREVIOUS, foreign).previous(), None);
        }
        let itself = message().with_id("a").with_header(PREVIOUS, "17 a");
        assert_eq!(itself.previous(), None);
    }

    #[test]
    fn size_counts_everything_that_travels() {
        let bare = message();
        let full = message().with_key("1234").with_header("abc", "de");
        assert_eq!(full.size(), bare.size() + 4 + 5);
    }
}
