//! A typed payload: which topic it goes to, and under which versioned type.
//!
//! The type travels with each message and carries a version, so that a reader
//! that meets a newer one can say so instead of misreading it. Fields that a
//! reader does not know are ignored; a field that changes its meaning makes a
//! new version, which says how it comes [out of the old one](Upcasts).

use chassis_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Message;
use crate::upcast;
pub use crate::upcast::Upcasts;

/// Something that happened, as the services of a system tell it to each other.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// The topic, such as `"greetings.said"`.
    const TOPIC: &'static str;

    /// The CloudEvents type with its version, such as `"greeting-said.v1"`.
    const TYPE: &'static str;

    /// Whether [consumers that ask for it](crate::Consumer::in_turn) can take the events
    /// of a key strictly in the order in which the outbox got them, also with several
    /// processes and over restarts. The outbox then writes into each event which one of
    /// its key comes before it, which costs a second statement with each append, and
    /// makes transactions that append under one key wait for each other.
    ///
    /// Not so where nothing is said: brokers then keep the order of a key as well as they
    /// can.
    const IN_TURN: bool = false;

    /// What must stay in order: events with equal keys are handled one after
    /// the other. `None` means that order does not matter.
    fn key(&self) -> Option<String>;

    /// How older versions become this one; see [`Upcasts`]. None, where nothing is said.
    fn upcasts() -> Upcasts<Self> {
        Upcasts::none()
    }
}

/// Splits a versioned type: `"greeting-said.v2"` is `("greeting-said", Some(2))`.
#[must_use]
pub fn split_version(kind: &str) -> (&str, Option<u32>) {
    match kind.rsplit_once(".v") {
        Some((name, digits)) => match digits.parse() {
            Ok(version) => (name, Some(version)),
            Err(_) => (kind, None),
        },
        None => (kind, None),
    }
}

impl Message {
    /// The message of an event: JSON, under a new id, at this moment.
    ///
    /// `source` is the name of the service that says it.
    ///
    /// # Errors
    ///
    /// `INTERNAL` where the event does not serialise (a map with keys that are
    /// not strings, or a `Serialize` that fails by itself).
    pub fn event<E: Event>(source: &str, event: &E) -> Result<Message> {
        let payload = serde_json::to_vec(event).map_err(Error::internal)?;
        let mut message = Message::new(E::TOPIC, E::TYPE, payload);
        message.source = source.to_owned();
        message.key = event.key();
        message.content_type = "application/json".to_owned();
        Ok(if E::IN_TURN && message.key.is_some() { message.in_turn() } else { message })
    }

    /// Reads the payload as the event `E`, also where it is an older version that can be
    /// [turned](Event::upcasts) into it.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT`: with the reason `UNKNOWN_EVENT_TYPE` where the
    /// message is of another type, `UNDECODABLE_EVENT` where the payload is not
    /// what the type promises.
    pub fn to_event<E: Event>(&self) -> Result<E> {
        upcast::read(&self.kind, &self.payload)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Greeting {
        name: String,
    }

    impl Event for Greeting {
        const TOPIC: &'static str = "greetings.said";
        const TYPE: &'static str = "greeting-said.v1";

        fn key(&self) -> Option<String> {
            Some(self.name.clone())
        }
    }

    #[test]
    fn an_event_comes_back_as_it_went() {
        let greeting = Greeting { name: "Ada".into() };
        let message = Message::event("greeter", &greeting).unwrap();
        assert_eq!(message.topic, "greetings.said");
        assert_eq!(message.kind, "greeting-said.v1");
        assert_eq!(message.source, "greeter");
        assert_eq!(message.key.as_deref(), Some("Ada"));
        assert_eq!(message.to_event::<Greeting>().unwrap(), greeting);
    }

    #[test]
    fn an_unknown_field_is_ignored() {
        let message =
            Message::new("greetings.said", "greeting-said.v1", r#"{"name":"Ada","mood":"good"}"#);
        assert_eq!(message.to_event::<Greeting>().unwrap().name, "Ada");
    }

    #[test]
    fn another_type_and_a_broken_payload_are_told_apart() {
        let other = Message::new("greetings.said", "greeting-said.v2", "{}");
        assert_eq!(other.to_event::<Greeting>().unwrap_err().reason(), "UNKNOWN_EVENT_TYPE");
        let broken = Message::new("greetings.said", "greeting-said.v1", "{");
        assert_eq!(broken.to_event::<Greeting>().unwrap_err().reason(), "UNDECODABLE_EVENT");
    }

    #[test]
    fn a_type_splits_into_name_and_version() {
        for (kind, expected) in [
            ("greeting-said.v1", ("greeting-said", Some(1))),
            ("a.vb.v12", ("a.vb", Some(12))),
            ("greeting-said", ("greeting-said", None)),
            ("greeting.various", ("greeting.various", None)),
        ] {
            assert_eq!(split_version(kind), expected);
        }
    }
}
