//! Tables and properties of the gate.
//!
//! Time is a number here: nothing waits.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const GOOD: Outcome = Outcome::Success(MS);
const BAD: Outcome = Outcome::Failure(MS);

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn gate(settings: BreakerSettings) -> Gate {
    Gate::new(settings.clamped(), 7)
}

fn default() -> BreakerSettings {
    BreakerSettings::default()
}

/// Admits; repeats if the system clock shows no time at all since the opening.
fn admit(gate: &mut Gate, now: Instant) -> Result<Ticket, Duration> {
    loop {
        match gate.admit(now) {
            Err(CLOCK_STEP) => std::hint::spin_loop(),
            result => return result,
        }
    }
}

fn call(gate: &mut Gate, now: Instant, outcome: Outcome) {
    let ticket = admit(gate, now).expect("a call is let through");
    gate.settle(ticket, now, outcome);
}

fn calls(gate: &mut Gate, now: Instant, outcomes: &[Outcome]) {
    for outcome in outcomes {
        call(gate, now, *outcome);
    }
}

/// Opens a gate and returns an instant after its open time.
fn open(gate: &mut Gate, now: Instant) -> Instant {
    let failures = gate.settings.consecutive_failures;
    for _ in 0..failures {
        call(gate, now, BAD);
    }
    assert_eq!(gate.state(), State::Open);
    now + gate.settings.open_max
}

fn open_time(gate: &mut Gate, now: Instant) -> Duration {
    gate.admit(now).expect_err("it is open")
}

/// A callee that is called seldom once stayed half open for good: each call began a new round.
#[test]
fn probes_that_are_far_apart_prove_it_too() {
    let settings = BreakerSettings { successes_to_close: 3, ..default() };
    let mut gate = gate(settings);
    let mut now = open(&mut gate, start());
    for _ in 0..3 {
        now += 10 * settings.open_max;
        call(&mut gate, now, GOOD);
    }
    assert_eq!(gate.state(), State::Closed);
}

#[test]
fn what_opens_it() {
    let slow = Outcome::Success(2 * SECOND);
    let gone = Outcome::Dropped(2 * SECOND);
    let left = Outcome::Dropped(MS);
    let rates = BreakerSettings {
        min_calls: 4,
        consecutive_failures: 0,
        slow_call: Some(SECOND),
        slow_rate: 0.75,
        ..default()
    };
    let row = BreakerSettings { consecutive_failures: 3, ..default() };
    let table: &[(&str, BreakerSettings, &[Outcome], State)] = &[
        ("three in a row", row, &[BAD, BAD, BAD], State::Open),
        ("a success between", row, &[BAD, BAD, GOOD, BAD, BAD], State::Closed),
        ("an ignored one is no success", row, &[BAD, BAD, Outcome::Ignored, BAD], State::Open),
        ("a dropped one is no success", row, &[BAD, BAD, left, BAD], State::Open),
        ("too few calls for a rate", rates, &[BAD, BAD, BAD], State::Closed),
        ("half of four fail", rates, &[BAD, BAD, GOOD, GOOD], State::Open),
        ("a third fails", rates, &[GOOD, GOOD, GOOD, BAD, GOOD, BAD], State::Closed),
        ("three of four are slow", rates, &[slow, slow, GOOD, slow], State::Open),
        ("two of four are slow", rates, &[slow, GOOD, GOOD, slow], State::Closed),
        ("a drop after a long wait is slow", rates, &[gone, GOOD, gone, gone], State::Open),
        ("a quick drop is nothing", rates, &[left, left, left, left, left], State::Closed),
    ];
    for (what, settings, outcomes, expected) in table {
        let mut gate = gate(*settings);
        calls(&mut gate, start(), outcomes);
        assert_eq!(gate.state(), *expected, "{what}");
    }
}

#[test]
fn old_failures_do_not_count() {
    let settings = BreakerSettings { min_calls: 4, consecutive_failures: 0, ..default() };
    for (pause, expected) in [(9, State::Open), (10, State::Closed)] {
        let now = start();
        let mut gate = gate(settings);
        calls(&mut gate, now, &[BAD, BAD, BAD]);
        call(&mut gate, now + pause * SECOND, BAD);
        assert_eq!(gate.state(), expected, "after {pause} s");
    }
}

#[test]
fn refuses_until_the_open_time_is_over() {
    let now = start();
    let mut gate = gate(default());
    open(&mut gate, now);
    let wait = open_time(&mut gate, now);
    assert!(wait >= gate.settings.open_for / 2 && wait <= gate.settings.open_for);
    assert_eq!(gate.admit(now + wait - MS), Err(MS));
    assert!(!gate.would_admit(now + wait - MS));
    assert!(gate.would_admit(now + wait));
    assert_eq!(gate.state(), State::Open, "asking whether it would changes nothing");
    assert!(admit(&mut gate, now + wait).is_ok());
    assert_eq!(gate.state(), State::HalfOpen);
    assert_eq!(gate.stats(now).rejected, 2);
}

#[test]
fn lets_few_probes_through_and_takes_places_back() {
    let mut gate = gate(default());
    let now = open(&mut gate, start());
    let probes: Vec<_> = (0..3).map(|_| admit(&mut gate, now).unwrap()).collect();
    assert_eq!(gate.admit(now), Err(Duration::ZERO));
    assert!(!gate.would_admit(now));
    for outcome in [Outcome::Ignored, Outcome::Dropped(MS)] {
        gate.settle(probes[0], now, outcome);
        assert_eq!(gate.state(), State::HalfOpen);
        assert!(gate.admit(now).is_ok(), "{outcome:?} frees the place");
        assert!(gate.admit(now).is_err());
    }
}

#[test]
fn closes_after_enough_good_probes() {
    let mut gate = gate(BreakerSettings { successes_to_close: 2, ..default() });
    let now = open(&mut gate, start());
    call(&mut gate, now, GOOD);
    assert_eq!(gate.state(), State::HalfOpen);
    call(&mut gate, now, GOOD);
    assert_eq!(gate.state(), State::Closed);
    assert_eq!(gate.stats(now).calls, 0, "it begins with an empty window");
    call(&mut gate, now, BAD);
    assert_eq!(gate.state(), State::Closed, "the failures from before are forgotten");
}

#[test]
fn a_bad_or_slow_probe_opens_it_again() {
    let settings = BreakerSettings { slow_call: Some(SECOND), ..default() };
    for outcome in [BAD, Outcome::Success(SECOND), Outcome::Dropped(2 * SECOND)] {
        let mut gate = gate(settings);
        let now = open(&mut gate, start());
        call(&mut gate, now, GOOD);
        call(&mut gate, now, outcome);
        assert_eq!(gate.state(), State::Open, "{outcome:?}");
        assert!(gate.admit(now).is_err());
    }
}

#[test]
fn the_open_time_grows_to_its_limit() {
    let mut gate = gate(default());
    let mut now = start();
    open(&mut gate, now);
    for whole in [5, 10, 20, 40, 60, 60] {
        let whole = whole * SECOND;
        let wait = open_time(&mut gate, now);
        assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        now += wait;
        call(&mut gate, now, BAD);
    }
}

#[test]
fn growth_is_kept_by_a_flapping_circuit_and_forgotten_by_a_stable_one() {
    for (calm, longest) in [(SECOND, 10 * SECOND), (11 * SECOND, 5 * SECOND)] {
        let mut gate = gate(default());
        let mut now = open(&mut gate, start());
        calls(&mut gate, now, &[GOOD, GOOD, GOOD]);
        assert_eq!(gate.state(), State::Closed);
        now += calm;
        open(&mut gate, now);
        let wait = open_time(&mut gate, now);
        assert!(wait >= longest / 2 && wait <= longest, "{wait:?} after {calm:?}");
    }
}

#[test]
fn late_answers_change_nothing() {
    let now = start();
    let mut gate = gate(default());
    let from_closed = admit(&mut gate, now).unwrap();
    let now = open(&mut gate, now);

    gate.settle(from_closed, now, GOOD);
    assert_eq!(gate.state(), State::Open, "closed, answered in open");

    let probe = admit(&mut gate, now).unwrap();
    let other = admit(&mut gate, now).unwrap();
    let before = gate.stats(now).probes;
    gate.settle(from_closed, now, BAD);
    assert_eq!(gate.state(), State::HalfOpen, "closed, answered in half-open");
    assert_eq!(gate.stats(now).probes, before);

    gate.settle(probe, now, BAD);
    assert_eq!(gate.state(), State::Open);
    let now = now + gate.settings.open_max;
    calls(&mut gate, now, &[GOOD, GOOD, GOOD]);
    assert_eq!(gate.state(), State::Closed);
    for _ in 0..100 {
        gate.settle(other, now, BAD);
    }
    assert_eq!(gate.state(), State::Closed, "half-open, answered in closed");
    assert_eq!(gate.stats(now).calls, 0);
    assert_eq!(gate.stats(now).late, 102);
}

#[test]
fn probes_that_never_end_do_not_shut_it_for_ever() {
    let mut gate = gate(default());
    let now = open(&mut gate, start());
    for _ in 0..3 {
        admit(&mut gate, now).unwrap();
    }
    let later = now + gate.settings.open_max;
    assert!(gate.admit(later - MS).is_err());
    assert!(gate.would_admit(later));
    calls(&mut gate, later, &[GOOD, GOOD, GOOD]);
    assert_eq!(gate.state(), State::Closed);
}

#[test]
fn manual_modes() {
    let now = start();
    let mut gate = gate(default());
    let before = admit(&mut gate, now).unwrap();

    gate.set_mode(Mode::ForcedOpen);
    gate.settle(before, now, GOOD);
    assert_eq!(gate.state(), State::ForcedOpen);
    let far = now + 1_000 * SECOND;
    assert_eq!(gate.admit(far), Err(gate.settings.open_max));
    assert!(!gate.would_admit(far));

    gate.set_mode(Mode::Disabled);
    calls(&mut gate, now, &[BAD; 50]);
    assert_eq!(gate.state(), State::Disabled);
    assert_eq!(gate.stats(now).calls, 0);

    gate.set_mode(Mode::MetricsOnly);
    calls(&mut gate, now, &[BAD; 50]);
    assert_eq!(gate.state(), State::MetricsOnly);
    assert_eq!(gate.stats(now).failure_rate(), 1.0);

    gate.reset();
    assert_eq!(gate.state(), State::Closed);
    calls(&mut gate, now, &[BAD; 4]);
    assert_eq!(gate.state(), State::Closed);
    call(&mut gate, now, BAD);
    assert_eq!(gate.state(), State::Open);
    gate.reset();
    assert_eq!(gate.state(), State::Closed);
    assert!(gate.admit(now).is_ok());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    End { which: usize, outcome: Outcome },
    Wait(u64),
    Mode(Mode),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(GOOD),
        4 => Just(BAD),
        1 => Just(Outcome::Success(2 * SECOND)),
        1 => Just(Outcome::Overloaded(MS)),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Dropped(MS)),
    ];
    prop_oneof![
        10 => Just(Step::Call),
        10 => (0usize..8, outcome).prop_map(|(which, outcome)| Step::End { which, outcome }),
        4 => (0u64..8_000).prop_map(Step::Wait),
        1 => prop_oneof![
            Just(Mode::ForcedOpen),
            Just(Mode::Disabled),
            Just(Mode::MetricsOnly),
        ].prop_map(Step::Mode),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    // Some 200 000 calls.
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn holds_its_promises_whatever_happens(
        steps in prop::collection::vec(step(), 1..400),
        permits in 1u32..4,
        needed in 1u32..4,
        seed in any::<u64>(),
    ) {
        let settings = BreakerSettings {
            min_calls: 5,
            slow_call: Some(SECOND),
            slow_rate: 0.8,
            consecutive_failures: 3,
            half_open_permits: permits,
            successes_to_close: needed,
            ..default()
        };
        let mut gate = Gate::new(settings, seed);
        let mut now = start();
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut open_until = now;
        for step in steps {
            let before = gate.state();
            match step {
                Step::Call => {
                    let promised = gate.would_admit(now);
                    let result = admit(&mut gate, now);
                    prop_assert_eq!(promised, result.is_ok());
                    if before == State::Open {
                        prop_assert_eq!(result.is_ok(), now >= open_until);
                    }
                    under_way.extend(result.ok());
                }
                Step::End { which, outcome } => {
                    if !under_way.is_empty() {
                        let ticket = under_way.swap_remove(which % under_way.len());
                        let late = ticket.generation != gate.generation;
                        let stats = gate.stats(now);
                        gate.settle(ticket, now, outcome);
                        if late {
                            let after = gate.stats(now);
                            prop_assert_eq!(Stats { late: stats.late + 1, ..stats }, after);
                        }
                        if gate.state() == State::Open && before != State::Open {
                            prop_assert!(outcome != Outcome::Ignored);
                            open_until = gate.open_until.unwrap();
                            prop_assert!(open_until >= now + settings.open_for / 2);
                            prop_assert!(open_until <= now + settings.open_max);
                        }
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Mode(mode) => gate.set_mode(mode),
                Step::Reset => gate.reset(),
            }
            if gate.state() == State::HalfOpen {
                let current = under_way.iter().filter(|t| t.generation == gate.generation);
                prop_assert!(current.count() <= permits as usize);
                prop_assert!(gate.proven < needed);
            }
        }
    }
}
