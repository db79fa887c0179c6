//! The numbers of the saga runner, with defaults that need no change.

use std::time::Duration;

use chassis_core::{Error, Result, config::duration};
use chassis_resilience::retry::Backoff;
use serde::{Deserialize, Serialize};

use super::progress::Policy;

/// Settings of a saga runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SagaConfig {
    /// Time between two looks at the table when nothing woke the runner.
    #[serde(with = "duration")]
    pub poll: Duration,
    /// After how long another runner may take over from one that died.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How long one try of a step may take; then it counts as one that may have
    /// happened.
    #[serde(with = "duration")]
    pub step_timeout: Duration,
    /// Sagas that move at the same time.
    pub max_concurrent: usize,
    /// Tries of a step before it is undone.
    pub attempts: u32,
    /// Tries after the pivot and of an undo, before the saga is parked.
    pub persistent_attempts: u32,
    /// The longest pause after the first failed try; it doubles with each further one.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// No pause between two tries is longer.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// How long ended sagas and signals without a saga are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// How often what is past its retention is removed.
    #[serde(with = "duration")]
    pub clean_every: Duration,
}

impl Default for SagaConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            lease: Duration::from_secs(5),
            step_timeout: Duration::from_secs(30),
            max_concurrent: 32,
            attempts: 5,
            persistent_attempts: 100,
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            retention: Duration::from_secs(30 * 24 * 60 * 60),
            clean_every: Duration::from_secs(60),
        }
    }
}

impl SagaConfig {
    /// Checks that the numbers make sense.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` that names the wrong setting.
    pub fn validate(&self) -> Result<()> {
        for (field, wrong) in [
            ("poll", self.poll.is_zero()),
            ("lease", self.lease.is_zero()),
            ("step_timeout", self.step_timeout.is_zero()),
            ("max_concurrent", self.max_concurrent == 0),
            ("attempts", self.attempts == 0),
            ("persistent_attempts", self.persistent_attempts == 0),
            ("clean_every", self.clean_every.is_zero()),
        ] {
            if wrong {
                let problem = "must be more than zero";
                let message = format!("saga {field} {problem}");
                let error = Error::invalid_argument("INVALID_SAGA_CONFIG", message);
                return Err(error.with_field(field, problem));
            }
        }
        Ok(())
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            attempts: self.attempts,
            backoff: Backoff { base: self.backoff, cap: self.max_backoff, factor: 2.0 },
            persistent_attempts: self.persistent_attempts,
        }
    }
}
