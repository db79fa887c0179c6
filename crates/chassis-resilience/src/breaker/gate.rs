//! The brain: who may call, and what an outcome changes.
//!
//! It stands around failsafe's state machine and owns what that lacks: the
//! window, the open deadline, the probes, the generation and the manual modes.
//! It is told the time and never asks for it.

use std::time::{Duration, Instant};

use super::{
    machine::{Machine, Phase},
    settings::BreakerSettings,
    stats::{State, Stats},
    window::Window,
};
use crate::retry::Backoff;

/// How long to wait if the machine refuses although the open time is over.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// Leave to make one call, valid for one generation.
///
/// Every transition starts a new generation, so that an outcome is judged only
/// in the state in which its call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u64,
}

impl Ticket {
    /// The ticket as a number, for an atomic; `u64::MAX` is none.
    pub(super) fn to_bits(ticket: Option<Ticket>) -> u64 {
        ticket.map_or(u64::MAX, |ticket| ticket.generation)
    }

    pub(super) fn from_bits(bits: u64) -> Option<Ticket> {
        (bits != u64::MAX).then_some(Ticket { generation: bits })
    }
}

/// How a call ended. The duration is the time that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success(Duration),
    Failure(Duration),
    /// The callee says that it is asked too much.
    Overloaded(Duration),
    /// The answer says nothing about the callee.
    Ignored,
    /// Nobody waited for the answer.
    Dropped(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Automatic,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

/// What an outcome says about the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    succeeded: bool,
    failed: bool,
    /// A failure that may mean that the callee is gone.
    hard: bool,
    slow: bool,
}

#[derive(Debug)]
pub(super) struct Gate {
    settings: BreakerSettings,
    machine: Machine,
    mode: Mode,
    window: Window,
    generation: u64,
    /// Whether the machine has counted failures since the last success.
    row: bool,
    open_until: Option<Instant>,
    /// Until when the callee has asked to be left alone.
    asked_until: Option<Instant>,
    closed_at: Option<Instant>,
    /// Openings in a row: it sets the length of the next open time.
    streak: u32,
    probes: u32,
    proven: u32,
    round_ends: Option<Instant>,
    random: fastrand::Rng,
    opened: u64,
    rejected: u64,
    late: u64,
}

impl Gate {
    /// `settings` must be valid. The seed decides the jitter.
    pub(super) fn new(settings: BreakerSettings, seed: u64) -> Self {
        Gate {
            machine: Machine::new(settings.consecutive_failures),
            window: Window::new(&settings),
            settings,
            mode: Mode::Automatic,
            generation: 0,
            row: false,
            open_until: None,
            asked_until: None,
            closed_at: None,
            streak: 0,
            probes: 0,
            proven: 0,
            round_ends: None,
            random: fastrand::Rng::with_seed(seed),
            opened: 0,
            rejected: 0,
            late: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        match (self.mode, self.machine.phase()) {
            (Mode::ForcedOpen, _) => State::ForcedOpen,
            (Mode::Disabled, _) => State::Disabled,
            (Mode::MetricsOnly, _) => State::MetricsOnly,
            (Mode::Automatic, Phase::Closed) => State::Closed,
            (Mode::Automatic, Phase::Open) => State::Open,
            (Mode::Automatic, Phase::HalfOpen) => State::HalfOpen,
        }
    }

    /// Whether [`Gate::admit`] would let a call through. Changes nothing.
    pub(super) fn would_admit(&self, now: Instant) -> bool {
        match self.state() {
            State::Closed | State::Disabled | State::MetricsOnly => true,
            State::ForcedOpen => false,
            State::Open => is_over(self.open_until, now),
            State::HalfOpen => self.has_free_probe() || is_over(self.round_ends, now),
        }
    }

    /// It counts the transitions.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The ticket of every call, where calls are let through whatever they are.
    pub(super) fn open_door(&self) -> Option<Ticket> {
        match self.state() {
            State::Closed | State::Disabled | State::MetricsOnly => {
                Some(Ticket { generation: self.generation })
            }
            State::Open | State::HalfOpen | State::ForcedOpen => None,
        }
    }

    /// Lets a call through, or says how long to wait.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Ticket, Duration> {
        let refused = match self.state() {
            State::Closed | State::Disabled | State::MetricsOnly => None,
            State::ForcedOpen => Some(self.settings.open_max),
            State::Open if !is_over(self.open_until, now) => Some(until(self.open_until, now)),
            State::Open if !self.machine.half_open() => Some(CLOCK_STEP),
            State::Open => {
                self.start_probing(now);
                self.probes += 1;
                None
            }
            State::HalfOpen => {
                // Probes that never end must not keep the circuit shut for ever. Where there is a
                // place without theirs, what was proven before counts.
                if !self.has_free_probe() && is_over(self.round_ends, now) {
                    self.start_probing(now);
                }
                if self.has_free_probe() {
                    self.probes += 1;
                    None
                } else {
                    Some(Duration::ZERO)
                }
            }
        };
        match refused {
            None => Ok(Ticket { generation: self.generation }),
            Some(wait) => {
                self.rejected += 1;
                Err(wait)
            }
        }
    }

    /// Takes the outcome of an admitted call. Each ticket is settled once.
    pub(super) fn settle(&mut self, ticket: Ticket, now: Instant, outcome: Outcome) {
        if ticket.generation != self.generation {
            self.late += 1;
            return;
        }
        let verdict = self.judge(outcome);
        match self.state() {
            State::Closed => self.settle_call(now, verdict),
            State::HalfOpen => self.settle_probe(now, verdict),
            State::MetricsOnly if verdict.counts() => {
                self.window.record(now, verdict.failed, verdict.slow);
            }
            // No ticket of this generation was given for a judgement.
            State::MetricsOnly | State::Disabled | State::ForcedOpen | State::Open => {}
        }
    }

    /// The callee asks to be left alone. It is heard when its failures open the circuit.
    pub(super) fn hint(&mut self, ticket: Ticket, now: Instant, retry_after: Duration) {
        if ticket.generation == self.generation {
            let until = now.checked_add(retry_after.min(self.settings.open_max));
            self.asked_until = self.asked_until.max(until);
        }
    }

    /// Other settings, from the next call on. A window of another shape begins empty; an open
    /// time that has begun stays. `settings` must be valid.
    pub(super) fn update(&mut self, settings: BreakerSettings) {
        let shape = |s: &BreakerSettings| (s.window, s.window_calls, s.buckets);
        if shape(&self.settings) != shape(&settings) {
            self.window = Window::new(&settings);
        }
        self.settings = settings;
        self.machine.fit(settings.consecutive_failures);
    }

    pub(super) fn settings(&self) -> BreakerSettings {
        self.settings
    }

    /// A manual mode; it lasts until the next mode or [`Gate::reset`].
    pub(super) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.generation += 1;
    }

    /// Automatic and closed, with nothing remembered.
    pub(super) fn reset(&mut self) {
        self.set_mode(Mode::Automatic);
        self.machine.reset();
        self.machine.fit(self.settings.consecutive_failures);
        self.window.clear();
        self.streak = 0;
        self.closed_at = None;
        self.asked_until = None;
    }

    /// `transitions` is left zero: the handle counts what it publishes.
    pub(super) fn stats(&mut self, now: Instant) -> Stats {
        let tally = self.window.tally(now);
        let state = self.state();
        Stats {
            state,
            calls: tally.calls,
            failures: tally.failures,
            slow: tally.slow,
            probes: if state == State::HalfOpen { self.probes } else { 0 },
            transitions: 0,
            opened: self.opened,
            rejected: self.rejected,
            late: self.late,
        }
    }

    fn judge(&self, outcome: Outcome) -> Verdict {
        let slow = |took: Duration| self.settings.slow_call.is_some_and(|limit| took >= limit);
        let nothing = Verdict { succeeded: false, failed: false, hard: false, slow: false };
        match outcome {
            Outcome::Success(took) => Verdict { succeeded: true, slow: slow(took), ..nothing },
            Outcome::Failure(took) => {
                Verdict { failed: true, hard: true, slow: slow(took), ..nothing }
            }
            Outcome::Overloaded(took) => Verdict { failed: true, slow: slow(took), ..nothing },
            Outcome::Ignored => nothing,
            // Whoever waited that long and left has seen a slow call.
            Outcome::Dropped(held) => Verdict { slow: slow(held), ..nothing },
        }
    }

    fn settle_call(&mut self, now: Instant, verdict: Verdict) {
        if !verdict.counts() {
            return;
        }
        let tally = self.window.record(now, verdict.failed, verdict.slow);
        let tripped = tally.trips(&self.settings);
        if !(verdict.hard || tripped) {
            // Without a failure before it, a success tells the machine nothing.
            if verdict.succeeded && self.row {
                self.machine.succeeded();
                self.row = false;
            }
            return;
        }
        self.machine.failed(tripped);
        self.row = true;
        if self.machine.phase() == Phase::Open {
            // A circuit that stayed closed for a whole window has recovered.
            let stable = self
                .closed_at
                .is_none_or(|at| now.saturating_duration_since(at) > self.settings.window);
            if stable {
                self.streak = 0;
            }
            self.start_open(now);
        }
    }

    fn settle_probe(&mut self, now: Instant, verdict: Verdict) {
        self.probes = self.probes.saturating_sub(1);
        if verdict.failed || verdict.slow {
            self.machine.failed(false);
            self.start_open(now);
        } else if verdict.succeeded {
            self.proven += 1;
            if self.proven >= self.settings.successes_to_close {
                self.machine.succeeded();
                self.machine.fit(self.settings.consecutive_failures);
                self.generation += 1;
                self.window.clear();
                self.asked_until = None;
                self.closed_at = Some(now);
            }
        }
    }

    fn start_open(&mut self, now: Instant) {
        self.generation += 1;
        self.opened += 1;
        self.streak = self.streak.saturating_add(1);
        let growth =
            Backoff { base: self.settings.open_for, cap: self.settings.open_max, factor: 2.0 };
        // Equal jitter: at least half, so that the callee gets its rest.
        let half = growth.ceiling(self.streak) / 2;
        let asked = self.asked_until.take().map_or(Duration::ZERO, |at| until(Some(at), now));
        self.open_until = now.checked_add(half.max(asked) + half.mul_f64(self.random.f64()));
    }

    fn start_probing(&mut self, now: Instant) {
        self.generation += 1;
        self.probes = 0;
        self.proven = 0;
        self.round_ends = now.checked_add(self.settings.open_max);
    }

    fn has_free_probe(&self) -> bool {
        self.probes < self.settings.half_open_permits
    }
}

impl Verdict {
    /// Whether the outcome belongs into the window.
    fn counts(self) -> bool {
        self.succeeded || self.failed || self.slow
    }
}

/// An instant too far away to be a number never comes.
fn is_over(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now >= at)
}

fn until(at: Option<Instant>, now: Instant) -> Duration {
    at.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
}

#[cfg(test)]
mod tests;
