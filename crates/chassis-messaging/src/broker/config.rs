//! The settings of a broker and of a subscription, with defaults that work.
//!
//! One set for all brokers, so that changing the URL is all that it takes to go
//! from a laptop to a cluster.

use std::path::PathBuf;
use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::{Error, Result, Secret};
use serde::{Deserialize, Serialize};

use crate::topic::{validate_group, validate_topic};

/// Which broker, and what it keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerConfig {
    /// Where the broker is: `embedded:<folder>` for the one in this process,
    /// `embedded:` for one that forgets all at the end, or
    /// `nats://user:password@host:4222`, with several servers joined by commas.
    pub url: Secret,
    /// How long to try to reach a server at start before giving up.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long to wait until the broker says that it has stored a message.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// The largest message, in bytes, with its attributes and headers.
    pub max_message_bytes: usize,
    /// How long the broker remembers message ids in order to drop repetitions.
    #[serde(with = "duration")]
    pub duplicate_window: Duration,
    /// How long messages are kept, whether or not all groups have had them.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// How long dead letters are kept: long enough for somebody to look at them.
    #[serde(with = "duration")]
    pub dead_letter_max_age: Duration,
    /// How many bytes of messages the embedded broker keeps. Where it is full it
    /// drops what all groups have had, then refuses to take more (`BROKER_FULL`):
    /// outbox rows wait. Dead letters are never dropped for room.
    pub max_bytes: u64,
    /// The same for each JetStream stream that is created, at least two messages of
    /// `max_message_bytes`; 0 for no limit of its own. The last message of a topic stays.
    ///
    /// A server sets that much space aside for each stream when it is made, so a
    /// default would exhaust a server with many streams. Without it, `max_age` and
    /// the server's own limit (`max_file_store`, or that of the account) hold.
    pub max_stream_bytes: u64,
    /// How many copies JetStream keeps of each stream that is created: 1, 3 or 5.
    pub replicas: usize,
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig {
            url: Secret::new("embedded:data/broker"),
            connect_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(5),
            max_message_bytes: 1024 * 1024,
            // Longer than the longest pause that a relay makes between two tries.
            duplicate_window: Duration::from_secs(10 * 60),
            max_age: Duration::from_secs(7 * 24 * 3600),
            dead_letter_max_age: Duration::from_secs(60 * 24 * 3600),
            max_bytes: 1024 * 1024 * 1024,
            max_stream_bytes: 0,
            replicas: 1,
        }
    }
}

/// What the URL of a broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerUrl {
    /// The embedded broker, its file in this folder.
    Embedded(PathBuf),
    /// The embedded broker in a folder that is removed at the end.
    Temporary,
    /// NATS servers.
    Nats(String),
}

impl BrokerConfig {
    /// The default settings with this URL.
    #[must_use]
    pub fn at(url: impl Into<String>) -> BrokerConfig {
        BrokerConfig { url: Secret::new(url), ..BrokerConfig::default() }
    }

    /// Reads the URL.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` with the reason `INVALID_BROKER_URL`. The message never
    /// holds the URL, which may contain a password.
    pub fn parse_url(&self) -> Result<BrokerUrl> {
        let url = self.url.expose().trim();
        match url.split_once(':') {
            Some(("embedded", "")) => Ok(BrokerUrl::Temporary),
            Some(("embedded", folder)) => Ok(BrokerUrl::Embedded(PathBuf::from(folder))),
            Some(("nats" | "tls" | "ws" | "wss", _)) => Ok(BrokerUrl::Nats(url.to_owned())),
            _ => Err(Error::invalid_argument(
                "INVALID_BROKER_URL",
                "the broker URL must begin with embedded: or nats://",
            )),
        }
    }

    /// Checks that the numbers go together.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` with the reason `INVALID_BROKER_CONFIG`.
    pub fn validate(&self) -> Result<()> {
        let refuse = |problem| Err(Error::invalid_argument("INVALID_BROKER_CONFIG", problem));
        if self.duplicate_window > self.max_age {
            return refuse("broker: duplicate_window must not be longer than max_age");
        }
        if self.dead_letter_max_age < self.max_age {
            return refuse("broker: dead_letter_max_age must not be shorter than max_age");
        }
        if self.max_age.is_zero() || self.publish_timeout.is_zero() {
            return refuse("broker: max_age and publish_timeout must be more than zero");
        }
        if self.max_message_bytes == 0 || self.max_bytes < self.max_message_bytes as u64 {
            return refuse("broker: max_bytes must hold at least one message of max_message_bytes");
        }
        let two = (self.max_message_bytes as u64).saturating_mul(2);
        if self.max_stream_bytes != 0 && self.max_stream_bytes < two {
            return refuse(
                "broker: max_stream_bytes must be 0 or hold at least two messages of \
                 max_message_bytes",
            );
        }
        if !matches!(self.replicas, 1 | 3 | 5) {
            return refuse("broker: replicas must be 1, 3 or 5");
        }
        Ok(())
    }
}

/// Who wants which messages, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The group: usually the name of the service.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// How many deliveries may be unanswered at a time.
    pub max_in_flight: usize,
    /// How many deliveries of one key may be unanswered at a time. With more than one
    /// they come in their order, each before the one ahead of it is answered: for a
    /// subscriber that handles several together and keeps the order itself.
    pub per_key: usize,
    /// How long the broker waits for an answer before it delivers again.
    pub ack_wait: Duration,
    /// How often a message is delivered at most; `None` means until it is answered
    /// for good.
    pub max_deliver: Option<u32>,
}

impl Subscription {
    /// A subscription with 8 in flight, one of each key, 30 s of ack wait and no limit
    /// on deliveries.
    #[must_use]
    pub fn new(group: impl Into<String>, topic: impl Into<String>) -> Subscription {
        Subscription {
            group: group.into(),
            topic: topic.into(),
            max_in_flight: 8,
            per_key: 1,
            ack_wait: Duration::from_secs(30),
            max_deliver: None,
        }
    }

    /// Checks names and numbers.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` with the reason `INVALID_TOPIC`, `INVALID_GROUP` or
    /// `INVALID_SUBSCRIPTION`.
    pub fn validate(&self) -> Result<()> {
        validate_topic(&self.topic)?;
        validate_group(&self.group)?;
        let refuse = |problem| Err(Error::invalid_argument("INVALID_SUBSCRIPTION", problem));
        if !(1..=1000).contains(&self.max_in_flight) {
            return refuse("max_in_flight must be between 1 and 1000");
        }
        if self.per_key == 0 {
            return refuse("per_key must be at least 1");
        }
        if self.ack_wait < Duration::from_millis(50) {
            return refuse("ack_wait must be at least 50 ms");
        }
        if self.max_deliver == Some(0) {
            return refuse("max_deliver must be at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("embedded:data/broker", Some(BrokerUrl::Embedded("data/broker".into()))),
            ("embedded:/tmp/b", Some(BrokerUrl::Embedded("/tmp/b".into()))),
            ("embedded:", Some(BrokerUrl::Temporary)),
            ("nats://localhost", Some(BrokerUrl::Nats("nats://localhost".into()))),
            ("amqp://localhost", None),
            ("", None),
        ] {
            assert_eq!(BrokerConfig::at(url).parse_url().ok(), expected, "{url}");
        }
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused() {
        BrokerConfig::default().validate().unwrap();
        let default = BrokerConfig::default;
        for bad in [
            BrokerConfig { duplicate_window: Duration::from_secs(30 * 24 * 3600), ..default() },
            BrokerConfig { max_age: Duration::ZERO, duplicate_window: Duration::ZERO, ..default() },
            BrokerConfig { dead_letter_max_age: Duration::from_secs(1), ..default() },
            BrokerConfig { max_bytes: 10, ..default() },
            BrokerConfig { max_stream_bytes: 10, ..default() },
            BrokerConfig { replicas: 2, ..default() },
        ] {
            assert_eq!(bad.validate().unwrap_err().reason(), "INVALID_BROKER_CONFIG");
        }
    }

    #[test]
    fn a_subscription_is_checked() {
        Subscription::new("group", "topic").validate().unwrap();
        let bad = Subscription { max_in_flight: 0, ..Subscription::new("group", "topic") };
        assert_eq!(bad.validate().unwrap_err().reason(), "INVALID_SUBSCRIPTION");
        assert!(Subscription::new("a.b", "topic").validate().is_err());
    }
}
