//! The numbers of the relay, with defaults that need no change.

use std::time::Duration;

use chassis_core::{Error, Result, config::duration};
use chassis_resilience::retry::Backoff;
use serde::{Deserialize, Serialize};

use super::lanes::Limits;
use crate::inbox::DEFAULT_RETENTION;

/// What to do about a broker that lost messages which it had acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Alert, and publish again what may be lost, as far as it is within the grace.
    #[default]
    Replay,
    /// Alert only: somebody decides, with the operation `outbox/replay`.
    Alert,
}

/// Settings of the outbox relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxConfig {
    /// Time between two looks at the table when nothing woke the relay. The
    /// wake-up after a commit in the same process does not wait for it.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// Messages being published at the same time.
    pub max_in_flight: usize,
    /// Rows held in memory.
    pub window: usize,
    /// Bytes of rows held in memory. A single row may be larger.
    pub window_bytes: usize,
    /// Rows of one key held in memory, so that the backlog of one key leaves room
    /// for others.
    pub per_key: usize,
    /// Shortest time between two wake-ups sent to relays in other processes; on
    /// PostgreSQL only. Zero sends and hears none: there the poll has to do.
    #[serde(with = "duration")]
    pub ping: Duration,
    /// After how long another relay may take over from one that died.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// After how many refusals by the broker a row is parked. A broker that
    /// does not answer costs no attempt.
    pub max_attempts: u32,
    /// The longest wait after the first refusal; it doubles with each further one.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// No wait between two tries is longer.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// One publish that takes longer counts as unanswered.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// How long published rows are kept, so that they can be replayed.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// How often rows past their grace are removed.
    #[serde(with = "duration")]
    pub clean_every: Duration,
    /// Rows removed by one statement.
    pub clean_batch: usize,
    /// How long the last event of a quiet key is remembered, so that the next one can say
    /// what came before it (`Event::IN_TURN`): longer than a
    /// message waits here and in the broker together.
    #[serde(with = "duration")]
    pub keep_turns: Duration,
    /// What to do about a broker that lost messages: `replay` or `alert`.
    pub on_loss: OnLoss,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            max_in_flight: 1024,
            window: 16_384,
            window_bytes: 16 * 1024 * 1024,
            per_key: 128,
            ping: Duration::from_millis(20),
            lease: Duration::from_secs(5),
            max_attempts: 10,
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(60 * 60),
            clean_every: Duration::from_secs(60),
            clean_batch: 5000,
            // As long as an inbox keeps its notes: one day more than brokers keep messages.
            keep_turns: DEFAULT_RETENTION,
            on_loss: OnLoss::Replay,
        }
    }
}

impl OutboxConfig {
    /// Checks that the numbers make sense together.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` that names the wrong setting.
    pub fn validate(&self) -> Result<()> {
        let bad = |field: &str, problem: &str| {
            Error::invalid_argument("INVALID_OUTBOX_CONFIG", format!("outbox {field} {problem}"))
                .with_field(field, problem)
        };
        let positive = "must be more than zero";
        for (field, wrong) in [
            ("max_in_flight", self.max_in_flight == 0),
            ("max_attempts", self.max_attempts == 0),
            ("window_bytes", self.window_bytes == 0),
            ("per_key", self.per_key == 0),
            ("clean_batch", self.clean_batch == 0),
            ("poll", self.poll.is_zero()),
            ("lease", self.lease.is_zero()),
            ("publish_timeout", self.publish_timeout.is_zero()),
            ("clean_every", self.clean_every.is_zero()),
            ("keep_turns", self.keep_turns.is_zero()),
        ] {
            if wrong {
                return Err(bad(field, positive));
            }
        }
        if self.window < self.max_in_flight {
            return Err(bad("window", "must not be less than max_in_flight"));
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> Limits {
        let row = Backoff { base: self.backoff, cap: self.max_backoff, factor: 2.0 };
        Limits {
            max_in_flight: self.max_in_flight,
            window: self.window,
            window_bytes: self.window_bytes,
            per_key: self.per_key,
            max_attempts: self.max_attempts,
            row,
            // A broker that is back should be found soon: a short cap.
            outage: Backoff { cap: self.max_backoff.min(Duration::from_secs(2)), ..row },
        }
    }
}
