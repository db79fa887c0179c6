//! The settings of a consumer, with defaults that work.

use std::time::Duration;

use chassis_core::config::duration;
use chassis_core::{Error, Result};
use chassis_resilience::BreakerSettings;
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
    /// What topics with a batch handler collect.
    pub batch: BatchConfig,
    /// When a topic is left alone because its handlers fail.
    pub pause: PauseConfig,
    /// How long messages wait for their turn, where the consumer takes them
    /// [in turn](crate::Consumer::in_turn).
    pub in_turn: InTurnConfig,
    /// How often the broker is asked how far the group is behind.
    #[serde(with = "duration")]
    pub lag_every: Duration,
}

/// What topics with a batch handler collect. Wolverine collects as many, for 250 ms;
/// the time here is what a lone event waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchConfig {
    /// The most events of a batch.
    pub size: usize,
    /// How long to collect, from the first event on; never longer than a third of
    /// `ack_wait`. A quarter of a batch does not wait where all that may be in hand is.
    #[serde(with = "duration")]
    pub within: Duration,
    /// How many batches of a topic are handled at the same time: some can be collected
    /// while others are committed. Each key always has the same lane. Lanes times
    /// size is what may be in hand, at most 1000.
    pub lanes: usize,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig { size: 100, within: Duration::from_millis(50), lanes: 4 }
    }
}

/// When a topic is left alone because its handlers fail, and for how long.
///
/// Half of at least twenty within a minute: twenty and a half are what the circuit
/// breakers of MicroProfile, Kratos and Moleculer use, a minute is what MassTransit's
/// kill switch looks at. That one trips at 10 % and Wolverine's at 15 %; but a pause
/// stops the good keys too, and each failing message is counted at each delivery. The
/// pause grows from ten seconds to five minutes, the time of Wolverine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PauseConfig {
    /// The share of failed deliveries, above 0 up to 1, from which the topic is left
    /// alone; 0 for never.
    pub failure_rate: f64,
    /// The share says nothing below so many deliveries in the window.
    pub min_deliveries: u32,
    /// The past that the share is taken over.
    #[serde(with = "duration")]
    pub window: Duration,
    /// The longest first pause. It is at least half of it, and doubles each time.
    #[serde(with = "duration")]
    pub first: Duration,
    /// No pause is longer than this.
    #[serde(with = "duration")]
    pub longest: Duration,
    /// How many messages are tried after a pause; it ends when so many succeed, and
    /// begins anew with the first that fails.
    pub probes: u32,
}

impl Default for PauseConfig {
    fn default() -> PauseConfig {
        PauseConfig {
            failure_rate: 0.5,
            min_deliveries: 20,
            window: Duration::from_secs(60),
            first: Duration::from_secs(10),
            longest: Duration::from_secs(5 * 60),
            probes: 3,
        }
    }
}

/// How long messages wait for their turn, where a consumer takes them
/// [in turn](crate::Consumer::in_turn).
///
/// Most waits are over in milliseconds: the one before is in the hands of another process.
/// After a crash it takes the `ack_wait` until it comes again. One that is parked in its
/// outbox is not waited for, since the outbox says so. It may also never come: it was
/// purged from the broker, or its outbox lost it. Then the wait ends when the broker says
/// that the group has answered all before this message, or when the patience is over. Time
/// in which broker or database are away does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InTurnConfig {
    /// For how long the broker is not asked whether the one before can still come: what it
    /// lost may be on its way again.
    #[serde(with = "duration")]
    pub settle: Duration,
    /// The longest wait, where the broker cannot say that there is nothing to wait for; at
    /// most twelve hours. Longer than a message that fails is tried again, or its key goes
    /// on without it.
    #[serde(with = "duration")]
    pub patience: Duration,
    /// What to do when the wait is over: `go-on` or `dead-letter`.
    pub overdue: Overdue,
    /// What to do with a message that comes when those behind it have gone on without it:
    /// `handle` or `skip`.
    pub late: Late,
}

/// What to do with a message whose predecessor does not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overdue {
    /// Handle it, and say so: an error in the log, and `consumer_gaps`.
    #[default]
    GoOn,
    /// Make it a dead letter with the reason `PREDECESSOR_MISSING`. Those behind it go on.
    DeadLetter,
}

/// What to do with a message that comes after its successor was handled. Not meant are
/// dead letters that were sent again: those are handled in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// Handle it: nothing is lost, and the handler must live with the order.
    #[default]
    Handle,
    /// Leave it: for handlers that keep the newest state only.
    Skip,
}

impl Default for InTurnConfig {
    fn default() -> InTurnConfig {
        InTurnConfig {
            // Longer than a relay takes to find out about a loss and to replay the beginning.
            settle: Duration::from_secs(10),
            // A message that fails is dead after six minutes.
            patience: Duration::from_secs(15 * 60),
            overdue: Overdue::default(),
            late: Late::default(),
        }
    }
}

impl PauseConfig {
    pub(super) fn breaker(&self) -> BreakerSettings {
        BreakerSettings {
            window: self.window,
            buckets: 12,
            min_calls: self.min_deliveries,
            failure_rate: self.failure_rate,
            slow_call: None,
            // One poison message after the other must not stop the good ones.
            consecutive_failures: 0,
            open_for: self.first,
            open_max: self.longest,
            half_open_permits: self.probes,
            successes_to_close: self.probes,
            ..BreakerSettings::default()
        }
    }
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
            batch: BatchConfig::default(),
            pause: PauseConfig::default(),
            in_turn: InTurnConfig::default(),
            // As often as Prometheus looks.
            lag_every: Duration::from_secs(15),
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
        let BatchConfig { size, lanes, .. } = self.batch;
        if size == 0 || lanes == 0 || size.saturating_mul(lanes) > 1000 {
            return refuse("consumer: batch.size times batch.lanes must be between 1 and 1000");
        }
        const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
        if self.in_turn.patience < self.in_turn.settle || self.in_turn.patience > LONGEST {
            return refuse(
                "consumer: in_turn.patience must be between in_turn.settle and twelve hours",
            );
        }
        if self.lag_every < Duration::from_millis(100) {
            return refuse("consumer: lag_every must be at least 100 ms");
        }
        if self.pause.failure_rate != 0.0
            && let Err(error) = self.pause.breaker().validate()
        {
            let message = format!("consumer: pause: {error}");
            return Err(Error::invalid_argument("INVALID_CONSUMER_CONFIG", message));
        }
        Ok(())
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { base: self.retry_delay, cap: self.max_retry_delay, factor: 4.0 }
    }
}
