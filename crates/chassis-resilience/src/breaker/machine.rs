//! failsafe's state machine, fitted with our policy and made readable.
//!
//! failsafe carries closed, open and half-open, and counts consecutive failures.
//! Three things are fitted here. It reads the system clock, so its own open time
//! is zero and the gate, which is told the time, holds the real one. Its policy
//! is told nothing about an outcome but that it failed, so the verdict over the
//! window is handed to the policy beforehand. And its state is private, so it is
//! read from the events that it reports.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use failsafe::{
    FailurePolicy, Instrument, StateMachine,
    failure_policy::{ConsecutiveFailures, OrElse, consecutive_failures},
};

/// The three states that failsafe carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

type Policy = OrElse<ConsecutiveFailures<std::iter::Repeat<Duration>>, RatePolicy>;

/// The state machine. All its methods are called under the lock of the gate.
#[derive(Debug)]
pub(super) struct Machine {
    machine: StateMachine<Policy, PhaseReader>,
    phase: PhaseReader,
    rates: RatePolicy,
    consecutive: u32,
}

impl Machine {
    /// `consecutive` failures open it; 0 leaves that to the rates.
    pub(super) fn new(consecutive: u32) -> Self {
        let phase = PhaseReader(Arc::new(AtomicU8::new(CLOSED)));
        let rates = RatePolicy(Arc::new(AtomicBool::new(false)));
        let limit = if consecutive == 0 { u32::MAX } else { consecutive };
        let policy =
            consecutive_failures(limit, std::iter::repeat(Duration::ZERO)).or_else(rates.clone());
        Machine { machine: StateMachine::new(policy, phase.clone()), phase, rates, consecutive }
    }

    /// Takes another number of consecutive failures, at the latest when the circuit is closed
    /// again: failsafe's policy cannot be changed, and a new one begins closed.
    pub(super) fn fit(&mut self, consecutive: u32) {
        if self.consecutive != consecutive && self.phase() == Phase::Closed {
            *self = Machine::new(consecutive);
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.0.load(Ordering::Relaxed) {
            OPEN => Phase::Open,
            HALF_OPEN => Phase::HalfOpen,
            _ => Phase::Closed,
        }
    }

    /// A success. In half-open it closes the circuit, so the gate calls it only
    /// when enough probes have succeeded.
    pub(super) fn succeeded(&mut self) {
        self.machine.on_success();
    }

    /// A failure, or an outcome with which the rates have tripped.
    pub(super) fn failed(&mut self, rates_tripped: bool) {
        self.rates.0.store(rates_tripped, Ordering::Relaxed);
        self.machine.on_error();
    }

    /// Moves from open to half-open. `false` if the system clock has not moved
    /// at all since the circuit opened, which a clock of coarse steps may show.
    pub(super) fn half_open(&mut self) -> bool {
        self.machine.is_call_permitted()
    }

    /// Closed, with nothing remembered.
    pub(super) fn reset(&mut self) {
        self.machine.reset();
        // `reset` does nothing when already closed; a success forgets the
        // consecutive failures.
        self.machine.on_success();
    }
}

/// Opens when the window says so. failsafe asks it together with its own count
/// of consecutive failures.
#[derive(Clone, Debug)]
struct RatePolicy(Arc<AtomicBool>);

impl FailurePolicy for RatePolicy {
    fn record_success(&mut self) {}

    fn mark_dead_on_failure(&mut self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).then_some(Duration::ZERO)
    }

    fn revived(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;

/// The last state that failsafe reported. Relaxed is enough: it is written and
/// read under the lock of the gate.
#[derive(Clone, Debug)]
struct PhaseReader(Arc<AtomicU8>);

impl Instrument for PhaseReader {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.0.store(OPEN, Ordering::Relaxed);
    }

    fn on_half_open(&self) {
        self.0.store(HALF_OPEN, Ordering::Relaxed);
    }

    fn on_closed(&self) {
        self.0.store(CLOSED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_open(machine: &mut Machine) {
        // The system clock moves between two instructions on most systems, and
        // within a microsecond on all.
        while !machine.half_open() {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn consecutive_failures_open_it() {
        let mut machine = Machine::new(3);
        machine.failed(false);
        machine.failed(false);
        machine.succeeded();
        machine.failed(false);
        machine.failed(false);
        assert_eq!(machine.phase(), Phase::Closed);
        machine.failed(false);
        assert_eq!(machine.phase(), Phase::Open);
    }

    #[test]
    fn the_rates_open_it() {
        let mut machine = Machine::new(0);
        for _ in 0..100 {
            machine.failed(false);
        }
        assert_eq!(machine.phase(), Phase::Closed);
        machine.failed(true);
        assert_eq!(machine.phase(), Phase::Open);
    }

    #[test]
    fn a_failed_probe_opens_it_and_a_good_one_closes_it() {
        let mut machine = Machine::new(1);
        machine.failed(false);
        half_open(&mut machine);
        assert_eq!(machine.phase(), Phase::HalfOpen);
        machine.failed(false);
        assert_eq!(machine.phase(), Phase::Open);
        half_open(&mut machine);
        machine.succeeded();
        assert_eq!(machine.phase(), Phase::Closed);
    }

    #[test]
    fn reset_forgets_the_count() {
        let mut machine = Machine::new(2);
        machine.failed(false);
        machine.reset();
        machine.failed(false);
        assert_eq!(machine.phase(), Phase::Closed);
        machine.failed(false);
        machine.reset();
        assert_eq!(machine.phase(), Phase::Closed);
    }
}
