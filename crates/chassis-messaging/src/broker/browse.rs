//! Looking at stored messages without taking them: an extra power of a broker.
//!
//! A subscription hands out what comes next and remembers who had it. Whoever looks
//! after dead letters wants neither: to turn pages, read one again, remove one. Not
//! each broker can do that, so it is a second trait, which a driver may offer by
//! [`Driver::browse`](super::Driver::browse).

use chassis_core::{BoxFuture, Result};

use crate::message::Message;
use crate::topic::validate_topic;

/// The most messages of a page.
pub const MAX_PAGE: usize = 500;

/// A page ends after about so many bytes of messages.
pub(super) const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A broker whose stored messages can be looked at and removed.
pub trait Browse: Send + Sync + 'static {
    /// Reads messages from a position on, the oldest first: at most `limit`, at most
    /// [`MAX_PAGE`], and fewer where they are large or far apart. Position 0 is the
    /// beginning; only [`Page::next`] tells where the end is.
    ///
    /// Nothing is taken: subscribers get the messages as if nobody had looked.
    /// Dropping the future ends the reading.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a bad topic; `UNAVAILABLE` where the broker does not
    /// answer.
    fn page(&self, topics: Topics, from: u64, limit: usize) -> BoxFuture<'_, Result<Page>>;

    /// Reads the message at a position; `None` where there is none of these topics.
    ///
    /// Dropping the future ends the reading.
    ///
    /// # Errors
    ///
    /// As [`page`](Browse::page).
    fn read(&self, topics: Topics, position: u64) -> BoxFuture<'_, Result<Option<Stored>>>;

    /// Removes the message at a position of a topic; `false` where it is not there.
    /// It is not delivered any more, but for those that hold it already.
    ///
    /// Dropping the future leaves open whether it is removed.
    ///
    /// # Errors
    ///
    /// As [`page`](Browse::page).
    fn delete(&self, topic: String, position: u64) -> BoxFuture<'_, Result<bool>>;
}

/// Which topics to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    /// This one.
    One(String),
    /// All that begin with this one and a dot, but not itself.
    Below(String),
}

impl Topics {
    /// The topic that is named.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Topics::One(topic) | Topics::Below(topic) => topic,
        }
    }

    /// Whether a topic is one of these.
    #[must_use]
    pub fn contain(&self, topic: &str) -> bool {
        match self {
            Topics::One(one) => topic == one,
            Topics::Below(above) => {
                topic.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }

    /// Checks the name.
    ///
    /// # Errors
    ///
    /// As [`validate_topic`].
    pub fn validate(&self) -> Result<()> {
        validate_topic(self.name())
    }
}

/// A message where it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where: unique among the topics that share a first segment, rising with the
    /// time of storing. Never used again.
    pub position: u64,
    /// The message.
    pub message: Message,
}

/// Some messages, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Stored>,
    /// From where to go on; `None` where the end was reached.
    pub next: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_below_another_begin_with_it_and_a_dot() {
        let below = Topics::Below("a.b".to_owned());
        assert!(below.contain("a.b.c") && below.contain("a.b.c.d"));
        assert!(
            !["a.b", "a.bc", "a.b-c.d", "a", "b.a.b.c"].iter().any(|topic| below.contain(topic))
        );
        let one = Topics::One("a.b".to_owned());
        assert!(one.contain("a.b") && !one.contain("a.b.c"));
    }
}
