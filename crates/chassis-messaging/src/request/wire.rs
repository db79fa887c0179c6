//! How requests, replies and failures look as messages.

use std::time::Duration;

use chassis_core::{Code, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::{ERROR_CODE, ERROR_MESSAGE, ERROR_REASON};
use crate::message::{MAX_ATTRIBUTE_BYTES, Message};

/// The time that the caller has left, in milliseconds; as the HTTP header of that name.
const TIMEOUT_MS: &str = "x-request-timeout-ms";

/// The types of messages that answer.
const REPLY: &str = "reply";
const FAILURE: &str = "error";

pub(super) fn with_time(message: Message, left: Duration) -> Message {
    // A time that rounds to nothing is over.
    message.with_header(TIMEOUT_MS, left.as_millis().max(1).to_string())
}

/// The time that the caller has left, where it said so.
pub(super) fn time_of(message: &Message) -> Option<Duration> {
    message.header(TIMEOUT_MS)?.parse().ok().map(Duration::from_millis)
}

pub(super) fn reply<T: Serialize>(value: &T) -> Result<Message> {
    let payload = serde_json::to_vec(value).map_err(Error::internal)?;
    let mut message = Message::new(REPLY, REPLY, payload);
    "application/json".clone_into(&mut message.content_type);
    Ok(message)
}

pub(super) fn failure(error: &Error) -> Message {
    let text = error.message();
    let text = text.get(..text.floor_char_boundary(MAX_ATTRIBUTE_BYTES)).unwrap_or_default();
    Message::new(FAILURE, FAILURE, "")
        .with_header(ERROR_CODE, error.code().as_str())
        .with_header(ERROR_REASON, error.reason())
        .with_header(ERROR_MESSAGE, text)
}

/// What a reply says.
pub(super) fn read<T: DeserializeOwned>(message: &Message) -> Result<T> {
    if let Some(code) = message.header(ERROR_CODE) {
        let code = Code::parse(code).unwrap_or(Code::Unknown);
        let header = |name| message.header(name).unwrap_or_default().to_owned();
        let error = Error::new(code, header(ERROR_REASON), header(ERROR_MESSAGE));
        return Err(match error.reason() {
            "NO_RESPONDER" | "RESPONDER_BUSY" => error.not_sent(),
            _ => error,
        });
    }
    serde_json::from_slice(&message.payload)
        .map_err(|source| Error::internal(source).with_detail("part", "reply"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_code_reason_and_message_without_its_source() {
        let error = Error::not_found("GREETING_NOT_FOUND", "no such greeting")
            .with_source("select * from secrets");
        let message = failure(&error);
        message.validate(1024).unwrap();
        let came = read::<u32>(&message).unwrap_err();
        assert_eq!((came.code(), came.reason()), (Code::NotFound, "GREETING_NOT_FOUND"));
        assert_eq!(came.message(), "no such greeting");
        assert!(!came.chain().contains("secrets"));
        let long = failure(&Error::not_found("X", "ä".repeat(9000)));
        long.validate(16 * 1024).unwrap();
    }

    #[test]
    fn a_value_comes_back_and_time_is_never_nothing() {
        assert_eq!(read::<Vec<u8>>(&reply(&vec![1, 2]).unwrap()).unwrap(), [1, 2]);
        let message = with_time(Message::new("a", "a.v1", ""), Duration::from_micros(3));
        assert_eq!(time_of(&message), Some(Duration::from_millis(1)));
        assert_eq!(time_of(&Message::new("a", "a.v1", "")), None);
        assert_eq!(
            read::<u8>(&Message::new("a", "reply", "x")).unwrap_err().code(),
            Code::Internal
        );
    }
}
