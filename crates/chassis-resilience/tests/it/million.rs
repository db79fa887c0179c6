//! A million calls to each part, at random, with what must hold checked after each of them.
//!
//! The properties in the modules try many short stories, which shrink to the few steps that
//! break something. Here is one long story for each part: what only goes wrong after a while,
//! such as a count that drifts or a ring that wraps, has time to. The seeds are fixed, and the
//! clock is a number, so a failure comes again.

use std::{collections::VecDeque, time::Duration};

use chassis_resilience::{
    AdaptiveLimit, AdaptiveSettings, BreakerSettings, BudgetSettings, Bulkhead, BulkheadSettings,
    CircuitBreaker, Class, Gcra, Permit, Priority, RateLimit, RetryBudget, Settle, ShedSettings,
    Shedder, State, Throttle, ThrottleSettings, Verdict, adaptive::Place,
};
use tokio::time::Instant;

use crate::MS;

const CALLS: u32 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);
/// What the parts draw of themselves comes from the thread's generator.
const THEIRS: u64 = 11;

fn verdict(class: Class) -> Verdict {
    Verdict { class, latency: Duration::ZERO, retry_after: None }
}

/// Takes one out at random.
fn any<T>(held: &mut Vec<T>, random: &mut fastrand::Rng) -> Option<T> {
    (!held.is_empty()).then(|| held.swap_remove(random.usize(..held.len())))
}

/// What happened within a span of time before the newest.
#[derive(Default)]
struct Lately(VecDeque<Duration>);

impl Lately {
    fn note(&mut self, at: Duration) {
        self.0.push_back(at);
    }

    fn within(&mut self, span: Duration, now: Duration) -> usize {
        while self.0.front().is_some_and(|at| *at + span <= now) {
            self.0.pop_front();
        }
        self.0.len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker() {
    let settings = BreakerSettings {
        consecutive_failures: 5,
        half_open_permits: 3,
        successes_to_close: 3,
        ..BreakerSettings::default()
    };
    fastrand::seed(THEIRS);
    let breaker = CircuitBreaker::new("million", settings);
    let mut random = fastrand::Rng::with_seed(1);
    let mut held: Vec<(Permit, Instant)> = Vec::new();
    let (mut ill, mut admitted, mut rejected, mut opened) = (false, 0u64, 0u64, 0u64);
    let mut open_since = None;
    for _ in 0..CALLS {
        tokio::time::advance(MS / 10 * random.u32(..200)).await;
        let now = Instant::now();
        if random.u32(..2_000) == 0 {
            ill = !ill;
        }
        let before = breaker.state();
        match breaker.try_acquire(now) {
            Ok(permit) => {
                if before == State::Open {
                    let since: Instant = open_since.expect("it has opened before");
                    assert!(
                        now >= since + settings.open_for / 2,
                        "a trial {:?} after it opened",
                        now - since
                    );
                }
                admitted += 1;
                held.push((permit, now));
            }
            Err(open) => {
                assert_ne!(before, State::Closed, "a closed circuit refuses nobody");
                assert!(open.retry_in <= settings.open_max, "{open:?}");
                rejected += 1;
            }
        }
        if held.len() > random.usize(..8) {
            let (permit, since) = any(&mut held, &mut random).unwrap();
            let took = now - since;
            let before = breaker.state();
            match random.u32(..20) {
                0 => drop(permit),
                1 => permit.ignore(),
                _ if ill && random.u32(..10) > 0 => permit.failure(took),
                _ => permit.success(took),
            }
            if before != State::Open && breaker.state() == State::Open {
                opened += 1;
                open_since = Some(now);
            }
        }
        let stats = breaker.stats();
        if stats.state == State::HalfOpen {
            assert!(stats.probes <= settings.half_open_permits, "{stats:?}");
        }
        assert!(stats.failures <= stats.calls, "{stats:?}");
    }
    let stats = breaker.stats();
    assert_eq!((stats.opened, stats.rejected), (opened, rejected));
    assert_eq!(admitted + rejected, u64::from(CALLS));
    assert!(opened > 100 && admitted > 100_000, "{opened} openings, {admitted} let through");
    // Whatever happened, a callee that is well gets its calls back.
    held.clear();
    for _ in 0..100 {
        tokio::time::advance(2 * settings.open_max).await;
        if let Ok(permit) = breaker.try_acquire(Instant::now()) {
            permit.success(MS);
        }
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_retry_budget() {
    let budget =
        RetryBudget::new(BudgetSettings { ratio: 0.2, min_per_second: 10, ttl: 10 * SECOND });
    let mut random = fastrand::Rng::with_seed(2);
    let begun = Instant::now();
    let (mut requests, mut retries) = (Lately::default(), Lately::default());
    let (mut sent, mut granted, mut per_second) = (0u64, 0u64, 1_000);
    for n in 0..CALLS {
        // From a call a second to thousands.
        if n % 20_000 == 0 {
            per_second = 10u64.pow(random.u32(..5));
        }
        // The timer's grain is a millisecond; several calls share one.
        let pause = Duration::from_micros(random.u64(..2_000_000 / per_second));
        tokio::time::advance(pause).await;
        let now = begun.elapsed();
        budget.deposit();
        requests.note(now);
        sent += 1;
        // Total failure: each call asks for all that it can get.
        for _ in 0..2 {
            if budget.withdraw() {
                granted += 1;
                retries.note(now);
            }
        }
        // The ring spans at least nine tenths of the time to live.
        let taken = retries.within(9 * SECOND, now) as f64;
        let paid = 0.2 * requests.within(10 * SECOND, now) as f64 + 100.0;
        assert!(taken <= paid + 1e-6, "{taken} retries for {paid}");
    }
    let stats = budget.stats();
    assert_eq!((stats.requests, stats.retries), (sent, granted));
    assert_eq!(stats.retries + stats.refused, 2 * sent);
    assert!(granted as f64 > 0.15 * sent as f64, "{granted} for {sent}");
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead() {
    let settings =
        BulkheadSettings { max_concurrent: 8, max_waiting: 4, max_wait: Duration::from_millis(20) };
    let bulkhead = Bulkhead::new(settings);
    let mut random = fastrand::Rng::with_seed(3);
    let (mut held, mut queue) = (Vec::new(), Vec::new());
    let (mut entered, mut refused, mut left, mut waited_too_long) = (0u32, 0u32, 0u32, 0u32);
    for n in 0..CALLS {
        let mut entering = {
            let bulkhead = bulkhead.clone();
            // Or tokio would let nobody in after a while, so that others have a turn.
            Box::pin(tokio::task::unconstrained(async move { bulkhead.enter().await }))
        };
        match futures_poll(entering.as_mut()) {
            Some(Ok(slot)) => {
                entered += 1;
                held.push(slot);
            }
            Some(Err(full)) => {
                assert!(full.waited.is_zero() && queue.len() == 4, "{full:?}, {}", queue.len());
                refused += 1;
            }
            None => queue.push(entering),
        }
        assert!(queue.len() <= settings.max_waiting);
        assert_eq!(bulkhead.waiting(), queue.len());
        // Somebody leaves: one that has a place, or one that waits for one.
        match random.u32(..10) {
            0 if !queue.is_empty() => {
                left += 1;
                drop(any(&mut queue, &mut random));
            }
            1..7 => drop(any(&mut held, &mut random)),
            _ => {}
        }
        if n % 1_000 == 0 {
            tokio::time::advance(2 * settings.max_wait).await;
        }
        queue.retain_mut(|entering| match futures_poll(entering.as_mut()) {
            Some(Ok(slot)) => {
                entered += 1;
                held.push(slot);
                false
            }
            Some(Err(full)) => {
                assert_eq!(full.waited, settings.max_wait);
                waited_too_long += 1;
                false
            }
            None => true,
        });
        assert!(held.len() <= settings.max_concurrent);
        assert_eq!(bulkhead.in_flight(), held.len());
    }
    assert_eq!(bulkhead.rejected(), u64::from(refused + waited_too_long));
    let waiting = u32::try_from(queue.len()).unwrap();
    assert_eq!(entered + refused + left + waited_too_long + waiting, CALLS);
    assert!(entered.min(refused) > 100_000 && left.min(waited_too_long) > 100, "{entered} entered");
    drop((held, queue));
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

/// What a future says now.
fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let waker = std::task::Waker::noop();
    match future.poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_rate_limit() {
    let limit = RateLimit::per_second(100).burst(20);
    let mut gcra = Gcra::default();
    let mut random = fastrand::Rng::with_seed(4);
    let start = Instant::now().into_std();
    let mut at = Duration::ZERO;
    let spans = [SECOND / 10, SECOND, 10 * SECOND];
    let mut passed: [Lately; 3] = Default::default();
    let mut count = 0u32;
    for _ in 0..CALLS {
        // A pause now and then, so that the burst comes back.
        let most = if random.u32(..100) == 0 { 500_000 } else { 9_000 };
        at += Duration::from_micros(random.u64(..most));
        match gcra.check(&limit, start + at) {
            Ok(()) => {
                count += 1;
                for (passed, span) in passed.iter_mut().zip(spans) {
                    passed.note(at);
                    let most = 20 + (span.as_micros() / limit.interval().as_micros()) as usize;
                    let seen = passed.within(span, at);
                    assert!(seen <= most, "{seen} in {span:?}, {most} allowed");
                }
            }
            Err(wait) => {
                assert!(wait > Duration::ZERO && wait <= limit.refill());
                assert!(gcra.clone().check(&limit, start + at + wait).is_ok(), "it is told when");
            }
        }
    }
    // And what is allowed is given: a hundred a second, whenever so many were asked for.
    let fair = 0.8 * 100.0 * at.as_secs_f64();
    assert!(f64::from(count) > fair, "{count} in {at:?}");
}

/// Ends one of the calls.
fn settle(held: &mut Vec<Place>, random: &mut fastrand::Rng) {
    if let Some(place) = any(held, random) {
        match random.u32(..10) {
            0 => drop(place),
            1 => place.settle(verdict(Class::Failure)),
            2 => place.settle(verdict(Class::Ignore)),
            _ => place.settle(verdict(Class::Success)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit() {
    let settings = AdaptiveSettings { max_limit: 64, ..AdaptiveSettings::default() };
    fastrand::seed(THEIRS);
    let limit = AdaptiveLimit::new(settings);
    let mut random = fastrand::Rng::with_seed(5);
    let mut held: Vec<Place> = Vec::new();
    let (mut rejected, mut highest, mut lowest) = (0u64, 0, u32::MAX);
    for n in 0..CALLS {
        if random.u32(..4) == 0 {
            tokio::time::advance(MS * random.u32(..8)).await;
        }
        let before = limit.stats();
        assert!((settings.min_limit..=settings.max_limit).contains(&before.limit), "{before:?}");
        match limit.try_enter(Instant::now()) {
            Ok(place) => {
                assert!(before.in_flight < before.limit, "{before:?}");
                held.push(place);
            }
            Err(_) => {
                assert!(before.in_flight >= before.limit, "{before:?}");
                rejected += 1;
            }
        }
        // The more are inside, the longer they stay.
        let leave = if n / 50_000 % 2 == 0 { 3 } else { 30 };
        while held.len() > random.usize(..leave) {
            settle(&mut held, &mut random);
        }
        let after = limit.stats();
        assert_eq!((after.in_flight as usize, after.rejected), (held.len(), rejected));
        (highest, lowest) = (highest.max(after.limit), lowest.min(after.limit));
    }
    assert!(highest > 2 * lowest, "it moved from {lowest} to {highest}");
    held.clear();
    assert_eq!(limit.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shedder() {
    fastrand::seed(THEIRS);
    let settings = ShedSettings::default();
    let shedder = Shedder::new(settings);
    let mut random = fastrand::Rng::with_seed(6);
    let mut held: Vec<Place> = Vec::new();
    let mut shed = [0u64; 3];
    for n in 0..CALLS {
        if random.u32(..4) == 0 {
            tokio::time::advance(MS * random.u32(..8)).await;
        }
        let before = shedder.stats();
        let room = |share: f64| {
            before.adaptive.in_flight < ((f64::from(before.adaptive.limit) * share) as u32).max(1)
        };
        let (priority, fits, index) = match random.u32(..4) {
            0 => (Priority::Sheddable, room(settings.sheddable_share), Some(0)),
            1 => (Priority::Normal, room(settings.normal_share), Some(1)),
            2 => (Priority::Critical, room(1.0), Some(2)),
            _ => (Priority::Exempt, true, None),
        };
        match shedder.try_enter(priority, Instant::now()) {
            Ok(place) => {
                assert!(fits, "{priority:?} in {before:?}");
                assert_eq!(place.is_none(), priority == Priority::Exempt);
                held.extend(place);
            }
            Err(_) => {
                assert!(!fits, "{priority:?} in {before:?}");
                shed[index.expect("an exempt call is never shed")] += 1;
            }
        }
        let leave = if n / 50_000 % 2 == 0 { 3 } else { 30 };
        while held.len() > random.usize(..leave) {
            settle(&mut held, &mut random);
        }
        let after = shedder.stats();
        assert_eq!(after.adaptive.in_flight as usize, held.len());
        assert_eq!([after.sheddable, after.normal, after.critical], shed);
    }
    // Where the limit is as low as two, the shares of the first two are the same place.
    let [sheddable, normal, critical] = shed;
    assert!(sheddable * 101 / 100 > normal && normal > critical && critical > 0, "{shed:?}");
    held.clear();
    assert_eq!(shedder.stats().adaptive.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle() {
    fastrand::seed(THEIRS);
    let throttle = Throttle::new(ThrottleSettings::default());
    // One more for the callee's health: what the throttle draws must not change its course.
    let (mut random, mut health) = (fastrand::Rng::with_seed(7), fastrand::Rng::with_seed(8));
    let begun = Instant::now();
    let (mut accepts, mut part) = (Lately::default(), 1.0);
    let (mut tried, mut quiet_since) = (Lately::default(), Duration::ZERO);
    let mut refused = 0u32;
    for n in 0..CALLS {
        if n % 50_000 == 0 {
            part = [1.0, 0.5, 0.2, 0.0][health.usize(..4)];
        }
        tokio::time::advance(MS * random.u32(..3)).await;
        let now = begun.elapsed();
        tried.note(now);
        match throttle.try_acquire(Instant::now()) {
            Ok(place) => {
                quiet_since = now;
                let accepted = random.f64() < part;
                if accepted {
                    accepts.note(now);
                }
                place.settle(verdict(if accepted { Class::Success } else { Class::Failure }));
            }
            Err(_) => {
                refused += 1;
                // One a second goes through, however ill the callee is.
                assert!(
                    now - quiet_since <= SECOND,
                    "nothing was sent for {:?}",
                    now - quiet_since
                );
                // K is 2. The ring spans at least 39 of its 40 slots.
                let accepts = accepts.within(39 * SECOND / 4, now);
                let tried = tried.within(10 * SECOND, now);
                assert!(tried > 2 * accepts, "{accepts} of {tried} were accepted");
            }
        }
    }
    assert!((100_000..900_000).contains(&refused), "{refused} held back");
}
