//! The settings of a consumer, with defaults that work.

use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::{Error, Result};
use chassis_resilience::retry::Backoff;
use serde::{Deserialize, Serialize};

/// How many hands, how much patience, how many tries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    /// How many messages of one topic are handled at the same time, at most
    /// 1000. Each takes a database connection.
    pub concurrency: usize,
    /// How long the broker waits for a sign of life before it delivers again. A
    /// handler that takes longer is announced to the broker in time.
    #[serde(with = "duration")]
    pub ack_wait: Duration,
    /// How long one try of a handler may take.
    #[serde(with = "duration")]
    pub handler_timeout: Duration,
    /// How often a failed handler is tried again before the message goes back to
    /// the broker.
    pub immediate_retries: u32,
    /// After how many deliveries a message that still fails goes to the dead
    /// letters.
    pub max_attempts: u32,
    /// The longest delay before the second delivery. It grows fourfold with each.
    #[serde(with = "duration")]
    pub retry_delay: Duration,
    /// No delay is longer than this.
    #[serde(with = "duration")]
    pub max_retry_delay: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            // Below the ten connections of a default pool: others want some too.
            concurrency: 8,
            ack_wait: Duration::from_secs(30),
            handler_timeout: Duration::from_secs(30),
            immediate_retries: 2,
            // With the delays below: dead after about six minutes of failing.
            max_attempts: 6,
            retry_delay: Duration::from_secs(1),
            max_retry_delay: Duration::from_secs(5 * 60),
        }
    }
}

impl ConsumerConfig {
    /// Checks that the numbers make sense.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` with the reason `INVALID_CONSUMER_CONFIG`.
    pub fn validate(&self) -> Result<()> {
        let refuse = |problem| Err(Error::invalid_argument("INVALID_CONSUMER_CONFIG", problem));
        if !(1..=1000).contains(&self.concurrency) {
            return refuse("consumer: concurrency must be between 1 and 1000");
        }
        if self.ack_wait < Duration::from_millis(50) {
            return refuse("consumer: ack_wait must be at least 50 ms");
        }
        if self.handler_timeout.is_zero() {
            return refuse("consumer: handler_timeout must be more than zero");
        }
        if self.max_attempts == 0 {
            return refuse("consumer: max_attempts must be at least 1");
        }
        Ok(())
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { base: self.retry_delay, cap: self.max_retry_delay, factor: 4.0 }
    }
}
