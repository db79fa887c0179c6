//! A message as NATS headers and back.
//!
//! Attributes go as `ce-*`, as the CloudEvents NATS binding says, values escaped
//! the way of its HTTP binding (percent, for what is not visible ASCII), so that
//! no value can end a header line. Own headers go under their own names.

use std::borrow::Cow;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use chassis_core::{Error, Result};

use super::time;
use crate::message::Message;

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

    pub(super) const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
    pub(super) const PENDING: HeaderName = HeaderName::from_static("Nats-Pending-Messages");
    pub(super) const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
    pub(super) const ID: HeaderName = HeaderName::from_static(super::ID);
    pub(super) const SOURCE: HeaderName = HeaderName::from_static(super::SOURCE);
    pub(super) const TYPE: HeaderName = HeaderName::from_static(super::TYPE);
    pub(super) const TIME: HeaderName = HeaderName::from_static(super::TIME);
    pub(super) const KEY: HeaderName = HeaderName::from_static(super::KEY);
    pub(super) const CONTENT_TYPE: HeaderName = HeaderName::from_static(super::CONTENT_TYPE);
}

pub(super) fn encode(message: &Message) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| -> Result<()> {
        let value: HeaderValue = escape(value).parse().map_err(Error::internal)?;
        headers.insert(name, value);
        Ok(())
    };
    set(names::MESSAGE_ID, &message_id(message))?;
    set(names::SPEC_VERSION, "1.0")?;
    set(names::ID, &message.id)?;
    set(names::SOURCE, &message.source)?;
    set(names::TYPE, &message.kind)?;
    set(names::TIME, &time::format(message.time))?;
    set(names::CONTENT_TYPE, &message.content_type)?;
    if let Some(key) = &message.key {
        set(names::KEY, key)?;
    }
    for (name, value) in &message.headers {
        set(name.parse().map_err(Error::internal)?, value)?;
    }
    Ok(headers)
}

/// What the server knows repetitions by. A stream holds several topics, and an id need
/// only be unique within one; neither ':' nor '+' can be part of a topic.
fn message_id(message: &Message) -> String {
    let Message { topic, id, .. } = message;
    match message.edition() {
        Some(edition) => format!("{topic}+{edition}:{id}"),
        None => format!("{topic}:{id}"),
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

/// What the server knows a message by that was published here; see [`rename`].
pub(super) fn known_as(message: &Message, gone: Option<u64>) -> String {
    // As it goes over the wire.
    let id = escape(&message_id(message)).into_owned();
    match gone {
        Some(gone) => format!("{id}~{gone}"),
        None => id,
    }
}

/// The same message for the server as another one: for a message whose repetition was
/// dropped although the first one, at `gone`, is not there any more.
pub(super) fn rename(headers: &mut HeaderMap, gone: u64) {
    let name = format!("{}~{gone}", known_by(headers));
    headers.insert(names::MESSAGE_ID, name.as_str());
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

fn escape(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%' && byte != b'"';
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
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

    proptest! {
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
