//! A message as NATS headers and back.
//!
//! Attributes go as `ce-*`, as the CloudEvents NATS binding says, values escaped
//! the way of its HTTP binding (percent, for what is not visible ASCII), so that
//! no value can end a header line. Own headers go under their own names.

use std::borrow::Cow;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use chassis_core::{Error, Result, propagation};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{self, StringDeserializer};

use super::time;
use crate::message::{Message, is_header_name};

const ID: &str = "ce-id";
const SOURCE: &str = "ce-source";
const TYPE: &str = "ce-type";
const TIME: &str = "ce-time";
/// The CloudEvents extension for what must stay in order.
const KEY: &str = "ce-partitionkey";
const CONTENT_TYPE: &str = "content-type";

/// The same as names that need no making.
mod names {
    use async_nats::HeaderName;
    use chassis_core::propagation;

    pub(super) const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
    pub(super) const PENDING: HeaderName = HeaderName::from_static("Nats-Pending-Messages");
    pub(super) const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
    pub(super) const ID: HeaderName = HeaderName::from_static(super::ID);
    pub(super) const SOURCE: HeaderName = HeaderName::from_static(super::SOURCE);
    pub(super) const TYPE: HeaderName = HeaderName::from_static(super::TYPE);
    pub(super) const TIME: HeaderName = HeaderName::from_static(super::TIME);
    pub(super) const KEY: HeaderName = HeaderName::from_static(super::KEY);
    pub(super) const CONTENT_TYPE: HeaderName = HeaderName::from_static(super::CONTENT_TYPE);
    pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static(propagation::TRACEPARENT);
    pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static(propagation::REQUEST_ID);
}

pub(super) fn encode(message: &Message) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    // What is escaped has no line breaks, on which the conversion would panic.
    let mut set = |name: HeaderName, value: Cow<'_, str>| {
        headers.insert(name, HeaderValue::from(escape(value).into_owned()));
    };
    set(names::MESSAGE_ID, message_id(message).into());
    set(names::SPEC_VERSION, "1.0".into());
    set(names::ID, (&message.id).into());
    set(names::SOURCE, (&message.source).into());
    set(names::TYPE, (&message.kind).into());
    set(names::TIME, time::format(message.time).into());
    set(names::CONTENT_TYPE, (&message.content_type).into());
    if let Some(key) = &message.key {
        set(names::KEY, key.into());
    }
    for (name, value) in &message.headers {
        let name = match name.as_str() {
            propagation::TRACEPARENT => names::TRACEPARENT,
            propagation::REQUEST_ID => names::REQUEST_ID,
            other => other.parse().map_err(Error::internal)?,
        };
        set(name, value.into());
    }
    Ok(headers)
}

/// The same as [`encode`] gives, for a message on its way into a stream, under the name that it
/// gets by [`known_as`]. On the wire there is no difference.
///
/// A `HeaderMap` costs two pieces of memory and a place in a table for each header, and
/// that was a third of all that publishing costs. But it is written as it is: name, colon, value,
/// line break. So one value here holds the lines of all other headers. Each of them is escaped,
/// so the only line breaks are ours; where `async-nats` should come to refuse them also in what
/// it deserializes, the headers go one by one.
pub(super) fn block(message: &Message, gone: Option<u64>) -> Result<HeaderMap> {
    let mut lines = String::with_capacity(message.size() - message.payload.len() + 256);
    lines.push_str(&known_as(message, gone));
    let mut line = |name: &str, value: &str| {
        for text in ["\r\n", name, ": "] {
            lines.push_str(text);
        }
        lines.push_str(&escape(value.into()));
    };
    line("ce-specversion", "1.0");
    line(ID, &message.id);
    line(SOURCE, &message.source);
    line(TYPE, &message.kind);
    line(TIME, &time::format(message.time));
    line(CONTENT_TYPE, &message.content_type);
    if let Some(key) = &message.key {
        line(KEY, key);
    }
    for (name, value) in &message.headers {
        // It was validated, but nothing that is no name may come to stand here.
        if !is_header_name(name) {
            return Err(Error::internal(format!("the header name {name:?} is not allowed")));
        }
        line(name, value);
    }
    let lines: StringDeserializer<value::Error> = lines.into_deserializer();
    match HeaderValue::deserialize(lines) {
        Ok(lines) => Ok(HeaderMap::from_iter([(names::MESSAGE_ID, lines)])),
        Err(_) => {
            let mut headers = encode(message)?;
            headers.insert(names::MESSAGE_ID, known_as(message, gone));
            Ok(headers)
        }
    }
}

/// What the server knows repetitions by. A stream holds several topics, and an id need
/// only be unique within one; neither ':' nor '+' can be part of a topic.
fn message_id(message: &Message) -> String {
    let Message { topic, id, .. } = message;
    match message.edition() {
        Some(edition) => format!("{topic}+{edition}:{id}"),
        None => [topic.as_str(), id].join(":"),
    }
}

/// What the server knows a stored message by; empty where its publisher said nothing.
pub(super) fn known_by(headers: &HeaderMap) -> String {
    headers.get(names::MESSAGE_ID).map(|id| id.as_str().to_owned()).unwrap_or_default()
}

/// How many messages a request that ended did not bring; `None` where the server does not say.
pub(super) fn pending(status: &async_nats::Message) -> Option<usize> {
    status.headers.as_ref()?.get(names::PENDING)?.as_str().parse().ok()
}

/// What the server knows a message by that was published here, as it goes over the wire. By
/// another name where its repetition was dropped although the first one, at `gone`, is not
/// there any more.
pub(super) fn known_as(message: &Message, gone: Option<u64>) -> String {
    let id = escape(message_id(message).into()).into_owned();
    match gone {
        Some(gone) => format!("{id}~{gone}"),
        None => id,
    }
}

/// Reads what any publisher may have written: a missing attribute gets a value
/// that says so, and `fallback_id` stands for a missing id. Whether such a
/// message can be handled is for the consumer to say.
pub(super) fn decode(message: &async_nats::Message, fallback_id: String) -> Message {
    let mut decoded = Message {
        id: fallback_id,
        source: String::new(),
        kind: String::new(),
        topic: message.subject.as_str().to_owned(),
        key: None,
        time: 0,
        content_type: "application/octet-stream".to_owned(),
        headers: std::collections::BTreeMap::new(),
        payload: message.payload.clone(),
    };
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let Some(value) = values.first() else { continue };
        let name: &str = name.as_ref();
        // Publishers of ours write them small; of others nobody knows.
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        if name.starts_with("nats-") {
            continue;
        }
        let value = unescape(value.as_str());
        match &*name {
            ID => decoded.id = value,
            SOURCE => decoded.source = value,
            TYPE => decoded.kind = value,
            TIME => decoded.time = time::parse(&value).unwrap_or(0),
            KEY => decoded.key = Some(value),
            CONTENT_TYPE => decoded.content_type = value,
            other if other.starts_with("ce-") => {}
            _ => {
                decoded.headers.insert(name.into_owned(), value);
            }
        }
    }
    decoded
}

fn escape(value: Cow<'_, str>) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%' && byte != b'"';
    // Without a way out in the middle it is many bytes at a time.
    if value.bytes().fold(true, |all, byte| all & plain(byte)) {
        return value;
    }
    let mut escaped = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(escaped)
}

fn unescape(value: &str) -> String {
    if !value.contains('%') {
        return value.to_owned();
    }
    let bytes = value.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = value.get(at + 1..at + 3).filter(|_| byte == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn travel(message: &Message) -> Message {
        let received = async_nats::Message {
            subject: message.topic.as_str().into(),
            reply: None,
            payload: message.payload.clone(),
            headers: Some(encode(message).unwrap()),
            status: None,
            description: None,
            length: 0,
        };
        decode(&received, "fallback".to_owned())
    }

    #[test]
    fn a_foreign_message_is_read_as_far_as_it_goes() {
        let foreign = async_nats::Message {
            subject: "greetings.said".into(),
            reply: None,
            payload: "hello".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let message = decode(&foreign, "seq-7".to_owned());
        assert_eq!((message.id.as_str(), message.kind.as_str()), ("seq-7", ""));
    }

    #[test]
    fn plain_values_stay_as_they_are() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let message = Message::new("a.b", "t.v1", "x").with_header("traceparent", traceparent);
        let headers = encode(&message).unwrap();
        assert_eq!(headers.get("traceparent").unwrap().as_str(), traceparent);
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), format!("a.b:{}", message.id));
    }

    #[test]
    fn a_redriven_message_is_no_repetition() {
        let message = Message::new("a.b", "t.v1", "x").with_id("1");
        let redriven = message.clone().with_header("dlq-redrives", "2");
        assert_eq!(message_id(&message), "a.b:1");
        assert_eq!(message_id(&redriven), "a.b+r2e0:1");
    }

    /// The headers as the server reads them.
    fn lines(headers: &HeaderMap) -> BTreeMap<String, String> {
        let mut wire = String::new();
        for (name, values) in headers.iter() {
            wire += &format!("{name}: {}\r\n", values[0]);
        }
        let parts = |line: &str| line.split_once(": ").map(|(n, v)| (n.into(), v.into()));
        let lines: BTreeMap<_, _> = wire.lines().map(|line| parts(line).unwrap()).collect();
        assert_eq!(wire.lines().count(), lines.len(), "none comes twice");
        lines
    }

    #[test]
    fn no_value_and_no_name_ends_a_line_of_the_block() {
        let mut message = Message::new("a.b", "t\r\nx: 1", "x").with_header("own", "a\nb: c");
        assert_eq!(lines(&block(&message, None).unwrap())["own"], "a%0Ab:%20c");
        assert_eq!(block(&message, None).unwrap().len(), 1, "not one by one");
        message.headers.insert("own\r\nx".into(), "1".into());
        assert!(block(&message, None).is_err());
    }

    proptest! {
        #[test]
        fn a_block_is_the_same_on_the_wire(
            id in "\\PC{1,20}", key in proptest::option::of(any::<String>()),
            value in any::<String>(), time in any::<i64>(), gone in proptest::option::of(any::<u64>()),
        ) {
            let time = time % (1 << 48);
            let mut message = Message::new("a.b", "t.v1", "x").with_id(id).with_header("own", value);
            (message.key, message.time) = (key, time);
            let mut headers = encode(&message).unwrap();
            headers.insert("Nats-Msg-Id", known_as(&message, gone));
            prop_assert_eq!(lines(&block(&message, gone).unwrap()), lines(&headers));
        }

        #[test]
        fn whatever_a_message_holds_comes_back(
            id in "\\PC{1,20}", key in proptest::option::of(any::<String>()),
            value in any::<String>(), time in 0..4_000_000_000_000i64,
        ) {
            let mut message = Message::new("a.b", "t.v1", "x").with_id(id).with_header("own", value);
            message.key = key;
            message.time = time;
            prop_assert_eq!(travel(&message), message);
        }
    }
}
