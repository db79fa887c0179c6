//! Numbers that fit together, by how much the caller depends on the callee.
//!
//! The layers have a dozen settings, and most wrong stacks are wrong between
//! them: attempts that cannot fit into the total time, a queue longer than
//! anybody waits. A profile is a consistent set to start from.

use std::time::Duration;

use crate::{
    adaptive::AdaptiveSettings,
    breaker::BreakerSettings,
    bulkhead::BulkheadSettings,
    hedge::HedgeSettings,
    retry::{Backoff, BudgetSettings, RetrySettings},
    shed::Priority,
    throttle::ThrottleSettings,
};

/// How much the caller depends on the callee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Without the answer the caller's own work fails, and failing costs more
    /// than waiting: a payment, the last step of a saga.
    Critical,
    /// The usual call of a service to another.
    #[default]
    Standard,
    /// The answer is nice to have: a recommendation, a decoration. It must never
    /// slow the rest down.
    BestEffort,
}

/// The settings of one stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileSettings {
    /// For all attempts together, with the waits between them.
    pub timeout: Duration,
    /// For one attempt.
    pub attempt_timeout: Duration,
    /// How attempts follow each other.
    pub retry: RetrySettings,
    /// How many retries are allowed in all.
    pub budget: BudgetSettings,
    /// When to stop asking.
    pub breaker: BreakerSettings,
    /// How many calls at the same time.
    pub bulkhead: BulkheadSettings,
    /// When a second copy of a late call is sent. `None`: never.
    pub hedge: Option<HedgeSettings>,
    /// For a callee that should be sent less instead of nothing, in place of the breaker.
    pub throttle: ThrottleSettings,
    /// For a limit that is measured, in place of the bulkhead.
    pub adaptive: AdaptiveSettings,
    /// What the callee should take the calls for.
    pub priority: Priority,
}

impl Profile {
    /// All of them, those who depend most first.
    pub const ALL: [Profile; 3] = [Profile::Critical, Profile::Standard, Profile::BestEffort];

    /// Its name in a configuration: `critical`, `standard` or `best_effort`.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Critical => "critical",
            Profile::Standard => "standard",
            Profile::BestEffort => "best_effort",
        }
    }

    /// The profile of this name.
    pub fn parse(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.as_str() == name)
    }

    /// The settings of this profile.
    pub fn settings(self) -> ProfileSettings {
        match self {
            Profile::Critical => critical(),
            Profile::Standard => standard(),
            Profile::BestEffort => best_effort(),
        }
    }
}

fn standard() -> ProfileSettings {
    ProfileSettings {
        // A person waits a few seconds before trying again by hand.
        timeout: Duration::from_secs(5),
        // Two attempts at full length and the wait between them fit into it.
        attempt_timeout: Duration::from_secs(2),
        retry: RetrySettings::default(),
        budget: BudgetSettings::default(),
        breaker: BreakerSettings {
            // Half of the attempt timeout: slow shows before it fails.
            slow_call: Some(Duration::from_secs(1)),
            slow_rate: 0.8,
            ..BreakerSettings::default()
        },
        bulkhead: BulkheadSettings::default(),
        // A twentieth more load is for those who need it to ask for.
        hedge: None,
        throttle: ThrottleSettings::default(),
        adaptive: AdaptiveSettings::default(),
        priority: Priority::Normal,
    }
}

fn critical() -> ProfileSettings {
    ProfileSettings {
        // Three attempts at full length and the waits between them fit.
        timeout: Duration::from_secs(15),
        attempt_timeout: Duration::from_secs(4),
        retry: RetrySettings {
            max_attempts: 4,
            backoff: Backoff {
                base: Duration::from_millis(100),
                cap: Duration::from_secs(2),
                factor: 2.0,
            },
            max_retry_after: Duration::from_secs(5),
        },
        // Each request may pay for half a retry: the work matters more than the
        // load, and there is less of it.
        budget: BudgetSettings { ratio: 0.5, ..BudgetSettings::default() },
        breaker: BreakerSettings {
            // Giving up is dear here, so it takes more evidence and ends sooner.
            consecutive_failures: 10,
            slow_call: Some(Duration::from_secs(3)),
            slow_rate: 0.9,
            open_for: Duration::from_secs(2),
            open_max: Duration::from_secs(30),
            ..BreakerSettings::default()
        },
        bulkhead: BulkheadSettings {
            // Waiting for a place is better than failing.
            max_wait: Duration::from_secs(1),
            ..BulkheadSettings::default()
        },
        // The tail is worth a twentieth more load.
        hedge: Some(HedgeSettings::default()),
        // Insists a little longer than others.
        throttle: ThrottleSettings { k: 3.0, ..ThrottleSettings::default() },
        adaptive: AdaptiveSettings::default(),
        priority: Priority::Critical,
    }
}

fn best_effort() -> ProfileSettings {
    ProfileSettings {
        // Below what a person notices in a page that is otherwise there.
        timeout: Duration::from_millis(500),
        attempt_timeout: Duration::from_millis(500),
        // Nothing that can be left out is worth a second load on the callee.
        retry: RetrySettings { max_attempts: 1, ..RetrySettings::default() },
        budget: BudgetSettings { ratio: 0.0, min_per_second: 0, ..BudgetSettings::default() },
        breaker: BreakerSettings {
            // Little evidence is enough to go without, and there is no hurry back.
            min_calls: 10,
            failure_rate: 0.3,
            consecutive_failures: 3,
            slow_call: Some(Duration::from_millis(250)),
            slow_rate: 0.5,
            open_for: Duration::from_secs(10),
            half_open_permits: 1,
            ..BreakerSettings::default()
        },
        bulkhead: BulkheadSettings {
            // A small share, and no queue: it must not take room from the rest.
            max_concurrent: 32,
            max_waiting: 0,
            max_wait: Duration::ZERO,
        },
        hedge: None,
        // Gives way first: go-zero's least K.
        throttle: ThrottleSettings { k: 1.1, ..ThrottleSettings::default() },
        adaptive: AdaptiveSettings { max_limit: 32, ..AdaptiveSettings::default() },
        priority: Priority::Sheddable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_fit_together() {
        for profile in Profile::ALL {
            let settings = profile.settings();
            assert_eq!(settings.breaker.validate(), Ok(()), "{profile:?}");
            assert!(
                settings.attempt_timeout <= settings.timeout,
                "{profile:?}: an attempt fits into the whole"
            );
            assert!(
                settings.bulkhead.max_wait < settings.attempt_timeout,
                "{profile:?}: the wait for a place leaves time for the call"
            );
            assert!(
                settings.breaker.slow_call.is_some_and(|slow| slow < settings.attempt_timeout),
                "{profile:?}: slow shows before the timeout"
            );
        }
    }

    #[test]
    fn who_needs_it_more_gives_way_later() {
        let [critical, standard, best_effort] = Profile::ALL.map(Profile::settings);
        assert!(critical.priority > standard.priority);
        assert!(standard.priority > best_effort.priority);
        assert!(critical.throttle.k > standard.throttle.k);
        assert!(standard.throttle.k > best_effort.throttle.k);
        assert!(best_effort.adaptive.max_limit <= best_effort.bulkhead.max_concurrent as u32);
    }

    #[test]
    fn a_retrying_profile_has_time_for_a_second_attempt() {
        for profile in Profile::ALL {
            let settings = profile.settings();
            if settings.retry.max_attempts > 1 {
                let two = settings.attempt_timeout * 2 + settings.retry.backoff.ceiling(1);
                assert!(two <= settings.timeout, "{profile:?}");
            }
        }
    }
}
