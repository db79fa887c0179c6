//! How far a group is behind: an extra power of a broker.
//!
//! A consumer sees what it has in hand. What waits behind that only the broker knows,
//! and asking it costs a round trip, so it is asked now and then in the background and
//! never by whoever scrapes metrics. Not each broker can say it, so it is a second
//! trait, which a driver may offer by [`Driver::lag`](super::Driver::lag).

use chassis_core::{BoxFuture, Result};

/// A broker that can say how far a group is behind.
pub trait MeasureLag: Send + Sync + 'static {
    /// How far this group is behind in this topic.
    ///
    /// Dropping the future ends the question.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` with the reason `GROUP_NOT_FOUND` where the group never joined the
    /// topic; `UNAVAILABLE` where the broker does not answer.
    fn measure(&self, group: String, topic: String) -> BoxFuture<'_, Result<Lag>>;
}

/// How far a group is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages that were not delivered yet. Brokers may stop counting at a hundred
    /// thousand.
    pub waiting: u64,
    /// Messages that were delivered and are not answered for good: in hand, or waiting
    /// to be delivered again.
    pub unanswered: u64,
}

impl Lag {
    /// Both together: what the group still has to do.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.waiting.saturating_add(self.unanswered)
    }
}

pub(super) fn no_such_group() -> chassis_core::Error {
    chassis_core::Error::not_found("GROUP_NOT_FOUND", "the group never joined this topic")
}
