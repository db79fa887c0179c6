//! One saga, for a person who asks where it is and why it does not move.

use std::time::{Duration, UNIX_EPOCH};

use chassis_data::Backend;
use serde::Serialize;

use super::changes::mask;
use super::definition::{Failure, SagaDefinition, SagaId};
use super::instance::{Instance, SagaLogLine};
use super::progress::SagaState;

/// What is known about one saga.
#[derive(Clone, Debug, Serialize)]
pub struct SagaView {
    /// Its id.
    pub id: SagaId,
    /// The name of its definition.
    pub definition: String,
    /// The version of the definition that started it.
    pub version: i64,
    /// Its business key.
    pub key: String,
    /// What it is doing.
    pub state: SagaState,
    /// The step that it stands before, or undoes; empty when it has ended.
    pub step: String,
    /// The steps that remain, in the order in which they will run or be undone,
    /// the current one included. Empty where the definition is not known here.
    pub remaining: Vec<String>,
    /// Why it is not moving, in a sentence.
    pub why: String,
    /// Failed tries of the current step.
    pub attempts: u32,
    /// The last error, with its sources.
    pub last_error: Option<String>,
    /// Why it is being undone, or was.
    pub failure: Option<Failure>,
    /// Its data, without what is private; null if it cannot be read.
    pub data: serde_json::Value,
    /// When it started, in unix milliseconds.
    pub started_at: i64,
    /// When it last moved, in unix milliseconds.
    pub updated_at: i64,
    /// What happened, oldest first; empty in a list.
    pub log: Vec<SagaLogLine>,
}

impl SagaView {
    pub(super) fn new<D, S, B: Backend>(
        definition: Option<&SagaDefinition<D, S, B>>,
        private: &[&str],
        instance: Instance,
        log: Vec<SagaLogLine>,
    ) -> SagaView {
        let why = why(&instance);
        let at = instance.position;
        let ended = at.state.has_ended();
        let mut data = serde_json::from_str(&instance.data).unwrap_or_default();
        mask(&mut data, private);
        let remaining = definition.filter(|_| !ended).map_or_else(Vec::new, |definition| {
            let names = definition.steps.iter().zip(&definition.plan);
            if at.backward {
                let below = names.take(at.step).filter(|(_, kind)| kind.can_be_undone());
                let mut names: Vec<_> = below.map(|(step, _)| step.name.to_owned()).collect();
                names.reverse();
                names
            } else {
                names.skip(at.step).map(|(step, _)| step.name.to_owned()).collect()
            }
        });
        SagaView {
            id: instance.id,
            definition: instance.definition,
            version: instance.version,
            key: instance.key,
            state: at.state,
            step: if ended { String::new() } else { instance.step_name },
            remaining,
            why,
            attempts: at.attempts,
            last_error: instance.last_error,
            failure: instance.failure.and_then(|json| serde_json::from_str(&json).ok()),
            data,
            started_at: instance.started_at,
            updated_at: instance.updated_at,
            log,
        }
    }
}

fn why(instance: &Instance) -> String {
    let at = instance.position;
    let step = &instance.step_name;
    let error = instance.last_error.as_deref().unwrap_or("unknown");
    let verb = if at.backward { "undo" } else { "run" };
    match at.state {
        SagaState::Completed => "it is complete".to_owned(),
        SagaState::Cancelled => "it was undone".to_owned(),
        SagaState::Queued => "it waits until the saga of its key before it has ended".to_owned(),
        SagaState::Parked => format!("it is parked and has to {verb} {step}: {error}"),
        _ if instance.owner.is_some() => {
            format!("a runner is busy to {verb} {step}, try {}", at.attempts + 1)
        }
        _ => match (&instance.waiting_for, instance.wait_until) {
            // A signal that came sets the time to wake up to "at once".
            (Some(event), _) if instance.wake_at == 0 => {
                format!("it is about to take the signal {event}")
            }
            (Some(event), Some(until)) if at.attempts == 0 => {
                format!("it waits for the signal {event} until {}", when(until))
            }
            _ if at.attempts > 0 => {
                let (next, wake) = (at.attempts + 1, when(instance.wake_at));
                format!("it waits until {wake} to {verb} {step}, try {next}, after: {error}")
            }
            _ => format!("it is about to {verb} {step}"),
        },
    }
}

/// A time of the table as a person reads it; one that no calendar has stays a number.
fn when(ms: i64) -> String {
    // The end of the year 9999 (RFC 3339).
    const LAST: u64 = 253_402_300_799_000;
    match u64::try_from(ms) {
        Ok(ms @ 0..=LAST) => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        for (ms, text) in [
            (1_601_999, "1970-01-01T00:26:41Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59Z"),
            (i64::MAX, "9223372036854775807"),
            (-1, "-1"),
        ] {
            assert_eq!(when(ms), text);
        }
    }
}
