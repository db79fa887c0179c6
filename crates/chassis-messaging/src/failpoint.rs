//! Named places where a test makes the code die, fail or wait.
//!
//! What a crash leaves behind depends on the line at which it comes, and chance seldom
//! finds the bad ones. So the lines that matter have names, and a test arms them: by
//! [`arm`] in its own process, by [`VARIABLE`] in another. Without the feature
//! `fail-points` none of this exists, and reaching a point is an empty function.
//!
//! | point | where |
//! |---|---|
//! | `outbox.before_commit` | the row is inserted, its transaction is open |
//! | `relay.before_publish` | the row is committed and read, the broker has nothing |
//! | `relay.after_publish` | the broker has it, the relay has not noted that |
//! | `relay.before_mark` | a batch of notes is about to be written |
//! | `handler.before_commit` | the handler has done its work, its transaction is open |
//! | `handler.before_ack` | the work is committed, the broker does not know |
//! | `saga.after_step` | a step was run, its transition is not written |
//! | `saga.before_commit` | a transition is written, its transaction is open |
//! | `saga.after_commit` | a transition is committed, the runner has not gone on |
//!
//! Not the crate `fail`: its points are synchronous, so that waiting at one stops a
//! thread of the runtime, and it brings a generator of random numbers of its own.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chassis_core::{Error, Result};
use tokio::sync::Notify;

/// The environment variable that arms points when the first one is reached:
/// `point=action`, joined by semicolons. See [`Arming::parse`].
pub const VARIABLE: &str = "CHASSIS_FAIL_POINTS";

/// All points.
pub const POINTS: &[&str] = &[
    "outbox.before_commit",
    "relay.before_publish",
    "relay.after_publish",
    "relay.before_mark",
    "handler.before_commit",
    "handler.before_ack",
    "saga.after_step",
    "saga.before_commit",
    "saga.after_commit",
];

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once, without destructors, as by `kill -9`.
    Abort,
    /// The process stops itself, as by `kill -STOP`, until somebody continues it.
    Stop,
    /// The point gives `UNAVAILABLE` with the reason `FAIL_POINT`.
    Error,
    /// The future waits until the point is armed otherwise or [`clear`]ed.
    Wait,
    /// The thread waits for the same, and with it a runtime that has no other: to all
    /// others a process that stands still, its timers and heartbeats too.
    Freeze,
    /// The future waits for this long.
    Delay(Duration),
}

/// An action and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arming {
    /// What happens.
    pub action: Action,
    /// How often the point is passed before it does.
    pub after: u64,
    /// How often it happens.
    pub times: u64,
}

impl Arming {
    /// The action at the next pass, and at no other.
    #[must_use]
    pub fn once(action: Action) -> Arming {
        Arming { action, after: 0, times: 1 }
    }

    /// The same after so many passes.
    #[must_use]
    pub fn after(self, passes: u64) -> Arming {
        Arming { after: passes, ..self }
    }

    /// Reads `abort`, `stop`, `error`, `wait`, `freeze` or `delay:<milliseconds>`; with
    /// `@<n>` behind it happens at the n-th pass, else at the first.
    #[must_use]
    pub fn parse(text: &str) -> Option<Arming> {
        let (name, pass) = match text.split_once('@') {
            Some((name, pass)) => (name, pass.parse().ok()?),
            None => (text, 1_u64),
        };
        let action = match name.split_once(':') {
            Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
            Some(_) => return None,
            None => match name {
                "abort" => Action::Abort,
                "stop" => Action::Stop,
                "error" => Action::Error,
                "wait" => Action::Wait,
                "freeze" => Action::Freeze,
                _ => return None,
            },
        };
        Some(Arming::once(action).after(pass.checked_sub(1)?))
    }
}

#[derive(Default)]
struct Points {
    armed: HashMap<String, Arming>,
    hits: HashMap<String, u64>,
    /// Changes with each arming and clearing: who waits looks again.
    epoch: u64,
}

#[derive(Default)]
struct Registry {
    points: Mutex<Points>,
    frozen: Condvar,
    waiting: Notify,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let registry = Registry::default();
        let text = std::env::var(VARIABLE).unwrap_or_default();
        for (point, arming) in text.split(';').filter_map(|one| one.split_once('=')) {
            match Arming::parse(arming.trim()) {
                Some(arming) => {
                    registry.points().armed.insert(point.trim().to_owned(), arming);
                }
                None => tracing::error!(point, arming, "{VARIABLE} cannot be read"),
            }
        }
        registry
    })
}

impl Registry {
    fn points(&self) -> MutexGuard<'_, Points> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, mut points: MutexGuard<'_, Points>) {
        points.epoch += 1;
        drop(points);
        self.frozen.notify_all();
        self.waiting.notify_waiters();
    }
}

/// Arms a point, in place of what it was armed with. Who waits there goes on.
pub fn arm(point: &str, arming: Arming) {
    let registry = registry();
    let mut points = registry.points();
    points.armed.insert(point.to_owned(), arming);
    registry.changed(points);
}

/// Disarms all points. Who waits at one goes on.
pub fn clear() {
    let registry = registry();
    let mut points = registry.points();
    points.armed.clear();
    registry.changed(points);
}

/// How often a point did what it was armed with.
#[must_use]
pub fn hits(point: &str) -> u64 {
    registry().points().hits.get(point).copied().unwrap_or(0)
}

/// Passes a point.
///
/// Dropping the future while it waits goes on without it.
///
/// # Errors
///
/// `UNAVAILABLE` with the reason `FAIL_POINT` where the point is armed with an error.
pub async fn reach(point: &'static str) -> Result<()> {
    let Some((action, epoch)) = pass(point) else { return Ok(()) };
    tracing::warn!(point, ?action, "fail point");
    match action {
        Action::Abort => std::process::abort(),
        Action::Error => return Err(Error::unavailable("FAIL_POINT", point)),
        Action::Delay(pause) => tokio::time::sleep(pause).await,
        Action::Stop => {
            let me = std::process::id().to_string();
            let stopped = std::process::Command::new("kill").args(["-STOP", &me]).status();
            if let Err(error) = stopped {
                tracing::error!(%error, "the process cannot stop itself");
            }
        }
        Action::Freeze => {
            let registry = registry();
            let still = registry.points();
            let still = registry.frozen.wait_while(still, |points| points.epoch == epoch);
            drop(still.unwrap_or_else(PoisonError::into_inner));
        }
        Action::Wait => loop {
            let changed = registry().waiting.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if registry().points().epoch != epoch {
                break;
            }
            changed.await;
        },
    }
    Ok(())
}

/// Counts a pass, and gives what is to happen.
fn pass(point: &str) -> Option<(Action, u64)> {
    let mut points = registry().points();
    let epoch = points.epoch;
    let armed = points.armed.get_mut(point)?;
    if armed.after > 0 {
        armed.after -= 1;
        return None;
    }
    armed.times = armed.times.checked_sub(1)?;
    let action = armed.action;
    *points.hits.entry(point.to_owned()).or_default() += 1;
    Some((action, epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armings_are_read() {
        let delay = Action::Delay(Duration::from_millis(30));
        for (text, expected) in [
            ("abort", Some(Arming::once(Action::Abort))),
            ("error@3", Some(Arming::once(Action::Error).after(2))),
            ("delay:30", Some(Arming::once(delay))),
            ("delay", None),
            ("error:3", None),
            ("wait@0", None),
            ("explode", None),
        ] {
            assert_eq!(Arming::parse(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_point_does_it_when_and_as_often_as_it_was_told() {
        let point = "test.times";
        reach(point).await.unwrap();
        arm(point, Arming { times: 2, ..Arming::once(Action::Error).after(1) });
        let mut failed = Vec::new();
        for _ in 0..4 {
            failed.push(reach(point).await.is_err());
        }
        assert_eq!(failed, [false, true, true, false]);
        assert_eq!(hits(point), 2);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_point_is_armed_otherwise() {
        let point = "test.waits";
        arm(point, Arming::once(Action::Wait));
        let waits = tokio::spawn(reach(point));
        while hits(point) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!waits.is_finished());
        arm(point, Arming { times: 0, ..Arming::once(Action::Wait) });
        waits.await.unwrap().unwrap();
    }
}
