//! Where the time went, and how much of it there is.
//!
//! Each step has a limit and all steps together have one. A step that is over it is
//! interrupted just as Ctrl-C would do it, so there is one way to end early, and it cleans up.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Interrupt;
use crate::test::Failure;

/// The limits of a run and what its steps took.
pub(super) struct Times {
    /// Where the running step's limit goes; it ends when this is dropped.
    limits: Sender<Limit>,
    /// What was said of a step that was interrupted for its time.
    late: Arc<Mutex<Option<String>>>,
    rows: RefCell<Vec<(&'static str, Duration)>>,
    /// Nothing may run after it.
    end: Cell<Instant>,
}

enum Limit {
    At(Instant, String),
    None,
}

impl Times {
    /// Steps that may take `all` together; who is late is interrupted by `interrupt`.
    pub(super) fn new(all: Duration, interrupt: Interrupt) -> Times {
        let (limits, orders) = channel();
        let late = Arc::new(Mutex::new(None));
        let said = Arc::clone(&late);
        thread::spawn(move || {
            let mut limit = Limit::None;
            loop {
                let order = match &limit {
                    Limit::None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Limit::At(at, _) => orders.recv_timeout(at.saturating_duration_since(now())),
                };
                limit = match (order, limit) {
                    (Ok(order), _) => order,
                    (Err(RecvTimeoutError::Timeout), Limit::At(_, line)) => {
                        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                        interrupt.send();
                        Limit::None
                    }
                    _ => return,
                };
            }
        });
        Times { limits, late, rows: RefCell::default(), end: Cell::new(now() + all) }
    }

    /// Does one step, within `limit`.
    ///
    /// # Errors
    /// Its own, or that it took too long.
    pub(super) fn step<T>(
        &self,
        name: &'static str,
        limit: Duration,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        println!("==> {name}");
        let started = now();
        let (at, whose) = if started + limit <= self.end.get() {
            (started + limit, format!("was not done within {} s", limit.as_secs()))
        } else {
            (self.end.get(), "was under way when the time for all of it was over".to_owned())
        };
        // The thread ends only with this.
        let _ = self.limits.send(Limit::At(at, format!("`{name}` {whose}")));
        let result = work();
        let _ = self.limits.send(Limit::None);
        let took = started.elapsed();
        self.rows.borrow_mut().push((name, took));
        println!("<== {:.1} s", took.as_secs_f64());
        match result {
            Err(Failure::Interrupted) => Err(self.late().unwrap_or(Failure::Interrupted)),
            result => result,
        }
    }

    /// The same for a step whose time is not of those that count together.
    ///
    /// # Errors
    /// Its own, or that it took too long.
    pub(super) fn aside<T>(
        &self,
        name: &'static str,
        limit: Duration,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (end, started) = (self.end.get(), now());
        self.end.set(end.max(started + limit));
        let result = self.step(name, limit, work);
        self.end.set(end + started.elapsed());
        result
    }

    /// Whether it was for its time that a step was interrupted.
    fn late(&self) -> Option<Failure> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.clone().map(Failure::Failed)
    }

    /// Prints what each step took.
    pub(super) fn print(&self) {
        let rows = self.rows.borrow();
        println!();
        for (name, took) in rows.iter() {
            println!("{:>7.1} s  {name}", took.as_secs_f64());
        }
        let all: Duration = rows.iter().map(|(_, took)| *took).sum();
        println!("{:>7.1} s  together", all.as_secs_f64());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that a person waited; no test pauses this clock"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Runner;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(1);

    fn late(all: Duration, limit: Duration) -> Result<(), Failure> {
        let (mut runner, interrupt) = Runner::new();
        let times = Times::new(all, interrupt);
        times.step("waiting", limit, || {
            if runner.pause(LONG) { Err(Failure::Interrupted) } else { Ok(()) }
        })
    }

    #[test]
    fn a_step_that_takes_too_long_is_interrupted_and_named() {
        let line = "`waiting` was not done within 0 s".to_owned();
        assert_eq!(late(LONG, SHORT), Err(Failure::Failed(line)));
        let line = "`waiting` was under way when the time for all of it was over".to_owned();
        assert_eq!(late(SHORT, LONG), Err(Failure::Failed(line)));
    }

    #[test]
    fn ctrl_c_is_not_taken_for_lateness() {
        let (mut runner, interrupt) = Runner::new();
        let times = Times::new(LONG, interrupt.clone());
        interrupt.send();
        let result = times.step("waiting", LONG, || {
            if runner.pause(LONG) { Err(Failure::Interrupted) } else { Ok(()) }
        });
        assert_eq!(result, Err(Failure::Interrupted));
    }
}
