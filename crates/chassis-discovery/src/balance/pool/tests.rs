//! The pick by itself: simulated endpoints, a clock that is a number.

use chassis_resilience::Class;
use chassis_resilience::breaker::BreakerSettings;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([127, 0, 0, 1], port).into())
}

fn endpoints(ports: impl IntoIterator<Item = u16>) -> Vec<Endpoint> {
    ports.into_iter().map(endpoint).collect()
}

/// Breakers that never open: the share of the traffic is what is tested.
fn no_breaker() -> BreakerSettings {
    BreakerSettings {
        consecutive_failures: 1_000_000,
        min_calls: 1_000_000,
        ..BreakerSettings::default()
    }
}

fn settings() -> BalanceSettings {
    BalanceSettings { breaker: no_breaker(), seed: 7, ..BalanceSettings::default() }
}

/// A pool whose services are their own ports.
fn pool(updates: Updates, settings: BalanceSettings) -> Pool<u16> {
    let target = Target::new("greeter", "http");
    Pool::new(target, updates, Box::new(|endpoint| endpoint.address.port()), settings)
}

fn picked(pool: &mut Pool<u16>, now: Instant) -> Picked<u16> {
    pool.pick(None, now).ok().expect("somebody is picked")
}

/// Calls one after the other; what each port answers is given by `answer`.
struct World {
    pool: Pool<u16>,
    now: Instant,
}

impl World {
    fn of(pool: Pool<u16>) -> World {
        World { pool, now: Instant::now() }
    }

    /// The ports that were called.
    fn calls(&mut self, count: usize, answer: impl Fn(u16) -> (Duration, Class)) -> Vec<u16> {
        (0..count)
            .filter_map(|_| {
                let Ok(Picked { service, call }) = self.pool.pick(None, self.now) else {
                    self.now += MS;
                    return None;
                };
                let (latency, class) = answer(service);
                self.now += latency;
                call.end(class, None, self.now);
                Some(service)
            })
            .collect()
    }

    fn share(&mut self, of: u16, count: usize, answer: impl Fn(u16) -> (Duration, Class)) -> f64 {
        let ports = self.calls(count, answer);
        ports.iter().filter(|port| **port == of).count() as f64 / ports.len() as f64
    }
}

fn well(_: u16) -> (Duration, Class) {
    (5 * MS, Class::Success)
}

fn zero_fails(port: u16) -> (Duration, Class) {
    if port == 0 { (MS, Class::Failure) } else { (5 * MS, Class::Success) }
}

#[test]
fn who_fails_fast_gets_less_than_two_in_a_hundred_but_is_not_forgotten() {
    for (name, breaker) in [("with", BreakerSettings::default()), ("without", no_breaker())] {
        let settings = BalanceSettings { breaker, ..settings() };
        let mut world = World::of(pool(Updates::fixed(endpoints([0, 1, 2])), settings));
        let share = world.share(0, 20_000, zero_fails);
        assert!(share > 0.0 && share < 0.01, "{name} breakers: {share}");
    }
}

#[test]
fn who_is_slow_gets_little() {
    let mut world = World::of(pool(Updates::fixed(endpoints([0, 1, 2])), settings()));
    let slow = |port| (if port == 0 { 50 * MS } else { 5 * MS }, Class::Success);
    let share = world.share(0, 20_000, slow);
    assert!(share < 0.01, "{share}");
}

/// It once took a minute, with a call every three seconds.
#[test]
fn who_is_well_again_has_its_share_back_within_two_seconds() {
    let mut world = World::of(pool(Updates::fixed(endpoints([0, 1, 2])), settings()));
    world.calls(5_000, zero_fails);
    let healed = world.now;
    world.calls(400, well);
    assert!(world.now - healed <= Duration::from_secs(2));
    let share = world.share(0, 3_000, well);
    assert!(share > 0.28, "{share}");
}

#[test]
fn after_an_open_circuit_too_and_within_twice_the_open_time() {
    let breaker = BreakerSettings { open_for: Duration::from_secs(1), ..Default::default() };
    let settings = BalanceSettings { breaker, ..settings() };
    let mut world = World::of(pool(Updates::fixed(endpoints([0, 1, 2])), settings));
    // Until the circuit has opened, not longer: the open time grows.
    world.calls(60, zero_fails);
    while world.pool.together.change(|health| health.ejected()) == 0 {
        world.calls(10, zero_fails);
    }
    let healed = world.now;
    world.calls(400, well);
    assert!(world.now - healed <= Duration::from_secs(2));
    assert_eq!(world.pool.together.change(|health| health.ejected()), 0);
    let share = world.share(0, 3_000, well);
    assert!(share > 0.28, "{share}");
}

#[test]
fn a_new_endpoint_is_used_at_once() {
    let (feed, updates) = Updates::channel();
    feed.publish(endpoints([1, 2]));
    let mut world = World::of(pool(updates, settings()));
    world.calls(1_000, well);
    feed.publish(endpoints([0, 1, 2]));
    let share = world.share(0, 300, well);
    assert!(share > 0.25, "{share}");
}

#[test]
fn calls_under_way_count_and_weights_do() {
    let set = [endpoint(0).with_weight(3), endpoint(1)];
    let mut pool = pool(Updates::fixed(set), settings());
    let now = Instant::now();
    let mut shares = [0; 2];
    let mut held = Vec::new();
    for _ in 0..400 {
        let place = picked(&mut pool, now);
        shares[usize::from(place.service)] += 1;
        held.push(place.call);
    }
    assert!((290..=310).contains(&shares[0]), "{shares:?}");
    drop(held);
    assert_eq!(pool.together.in_flight(), 0);
}

#[test]
fn who_stays_in_the_set_keeps_its_history() {
    let (feed, updates) = Updates::channel();
    let mut pool = pool(updates, settings());
    let now = Instant::now();
    assert!(matches!(pool.pick(None, now), Err(Refused::Unknown)));
    feed.publish(endpoints([1]));
    picked(&mut pool, now).call.end(Class::Failure, None, now);
    feed.publish(endpoints([1, 2]));
    for _ in 0..20 {
        assert_eq!(picked(&mut pool, now).service, 2);
    }
    feed.publish([]);
    assert!(matches!(pool.pick(None, now), Err(Refused::NoEndpoints(_))));
}

/// Endpoints 0 to 9 of one zone, 10 to 19 of another.
fn two_zones() -> Updates {
    let zone = |port: u16| if port < 10 { "a" } else { "b" };
    Updates::fixed((0..20).map(|port| endpoint(port).with_zone(zone(port))))
}

#[test]
fn calls_stay_in_their_zone_and_spill_over_when_it_is_full() {
    let settings = BalanceSettings { zone: Some("b".into()), ..settings() };
    let mut world = World::of(pool(two_zones(), settings));
    let outside = world.calls(10_000, well).iter().filter(|port| **port < 10).count();
    assert!(outside < 100, "{outside} left the zone");
    let held: Vec<Picked<u16>> = (0..400).map(|_| picked(&mut world.pool, world.now)).collect();
    let outside = held.iter().filter(|place| place.service < 10).count();
    assert!((50..200).contains(&outside), "{outside} of 400 spilled over");
}

#[test]
fn a_zone_that_fails_is_left() {
    let settings = BalanceSettings { zone: Some("b".into()), ..settings() };
    let mut world = World::of(pool(two_zones(), settings));
    let b_fails = |port| if port >= 10 { (MS, Class::Failure) } else { (5 * MS, Class::Success) };
    let calls = world.calls(5_000, b_fails);
    let inside = calls[1_000..].iter().filter(|port| **port >= 10).count();
    assert!(inside < 200, "{inside} of 4000");
    world.calls(6_000, well);
    let outside = world.calls(1_000, well).iter().filter(|port| **port < 10).count();
    assert!(outside < 100, "{outside} are still outside");
}

#[test]
fn of_a_large_set_only_a_part_is_used_and_the_same_by_the_same_seed() {
    let used = |seed| {
        let settings = BalanceSettings { subset: 20, seed, ..settings() };
        let mut world = World::of(pool(Updates::fixed(endpoints(0..1_000)), settings));
        let mut ports = world.calls(2_000, well);
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    assert_eq!(used(1).len(), 20);
    assert_eq!(used(1), used(1));
    assert_ne!(used(1), used(2));
}

#[test]
fn a_key_stays_with_its_endpoint_until_that_fails() {
    let settings = BalanceSettings { breaker: BreakerSettings::default(), ..settings() };
    let mut pool = pool(Updates::fixed(endpoints(0..5)), settings);
    let now = Instant::now();
    let key = Some(Affinity::of("customer-7"));
    let mut call = |class| {
        let Picked { service, call } = pool.pick(key, now).ok().expect("somebody is picked");
        call.end(class, None, now);
        service
    };
    let owner = call(Class::Success);
    assert!((0..100).all(|_| call(Class::Success) == owner));
    for _ in 0..5 {
        call(Class::Failure);
    }
    let next = call(Class::Success);
    assert_ne!(next, owner);
    assert!((0..100).all(|_| call(Class::Success) == next));
}

#[test]
fn a_key_that_all_ask_for_does_not_drown_its_endpoint() {
    let mut pool = pool(Updates::fixed(endpoints(0..4)), settings());
    let now = Instant::now();
    let key = Some(Affinity::of("everybody's"));
    let held: Vec<Picked<u16>> = (0..400).filter_map(|_| pool.pick(key, now).ok()).collect();
    let mut counts = [0; 4];
    held.iter().for_each(|place| counts[usize::from(place.service)] += 1);
    assert!(counts.iter().all(|count| *count <= 126), "{counts:?}");
}

/// Opens the circuits of these ports.
fn open(world: &mut World, ports: std::ops::Range<u16>) {
    let key = |n: u32| Some(Affinity::of(n.to_le_bytes()));
    for n in 0..2_000 {
        let Ok(Picked { service, call }) = world.pool.pick(key(n), world.now) else { return };
        let class = if ports.contains(&service) { Class::Failure } else { Class::Success };
        call.end(class, None, world.now);
    }
}

#[test]
fn no_more_than_the_share_is_walked_past_and_too_few_is_a_panic() {
    let breaker = BreakerSettings::default();
    for (failing, ejected, mode) in
        [(3, 3, Mode::Normal), (7, 5, Mode::Normal), (8, 5, Mode::Panic)]
    {
        let settings = BalanceSettings { breaker, ..settings() };
        let mut world = World::of(pool(Updates::fixed(endpoints(0..10)), settings));
        open(&mut world, 0..failing);
        assert_eq!(world.pool.together.change(|health| health.ejected()), ejected);
        assert_eq!(world.pool.together.mode(), mode, "{failing} fail");
    }
}

#[test]
fn when_every_circuit_is_open_nobody_is_asked_until_the_first_trial() {
    let settings = BalanceSettings { breaker: BreakerSettings::default(), ..settings() };
    let mut world = World::of(pool(Updates::fixed(endpoints(0..3)), settings));
    open(&mut world, 0..3);
    let Err(Refused::AllOpen(open)) = world.pool.pick(None, world.now) else {
        panic!("a call found a way");
    };
    let retry_in = open.circuit.retry_in;
    assert!(retry_in > Duration::ZERO && retry_in <= Duration::from_secs(5), "{retry_in:?}");
    world.now += retry_in;
    assert!(world.pool.pick(None, world.now).is_ok());
}

/// A million calls in a set that fails, heals, comes and goes: who is picked is of the set, no
/// more than the share is ejected, and nothing is left under way.
#[test]
fn a_million_calls_eject_no_more_than_the_share() {
    let mut random = fastrand::Rng::with_seed(5);
    let (feed, updates) = Updates::channel();
    let mut set: Vec<u16> = (0..20).collect();
    feed.publish(endpoints(set.clone()));
    let breaker = BreakerSettings { open_for: Duration::from_millis(500), ..Default::default() };
    let max_ejected = 0.3;
    let settings = BalanceSettings { breaker, max_ejected, ..settings() };
    let mut pool = pool(updates, settings);
    let mut now = Instant::now();
    let (mut ill, mut held) = (0u32, Vec::new());
    let (mut calls, mut refused, mut ejected, mut most) = (0, 0, 0, 0);
    while calls < 1_000_000 {
        now += MS / 10 * random.u32(..10);
        match random.u32(..20_000) {
            0 => ill = random.u32(..) & random.u32(..),
            1 => {
                let port = random.u16(..25);
                match set.iter().position(|known| *known == port) {
                    Some(at) if set.len() > 1 => drop(set.swap_remove(at)),
                    Some(_) => {}
                    None => set.push(port),
                }
                feed.publish(endpoints(set.clone()));
            }
            _ => {}
        }
        calls += 1;
        match pool.pick(None, now) {
            Ok(place) => {
                assert!(set.contains(&place.service));
                held.push(place);
            }
            Err(_) => refused += 1,
        }
        if held.len() > random.usize(..20) {
            let Picked { service, call } = held.swap_remove(random.usize(..held.len()));
            let class = if ill >> service & 1 == 1 { Class::Failure } else { Class::Success };
            if random.u32(..50) == 0 { drop(call) } else { call.end(class, None, now) }
        }
        assert_eq!(pool.together.in_flight(), held.len());
        // Those who are ejected stay so when others leave; no more come to them.
        let now_ejected = pool.together.change(|health| health.ejected());
        let may_be = (max_ejected * set.len() as f64).max(1.0);
        assert!(now_ejected <= ejected || now_ejected as f64 <= may_be, "{now_ejected}");
        ejected = now_ejected;
        most = most.max(ejected);
    }
    held.clear();
    assert_eq!(pool.together.in_flight(), 0);
    assert!(most >= 4, "{most} were ejected at most: the world is too well");
    assert!(refused < calls / 10, "{refused} refused");
}

proptest! {
    /// Whatever answers come in whatever order, and whoever comes and goes: who is picked is
    /// of the newest set, nothing is left under way, and the count of the ejected is right.
    #[test]
    fn the_books_balance(
        steps in proptest::collection::vec((0u8..10, 0u16..12, 0u64..3_000), 1..400),
        zoned in any::<bool>(),
        subset in 0usize..5,
    ) {
        let (feed, updates) = Updates::channel();
        let mut set: Vec<u16> = (0..6).collect();
        let set_of = |ports: &[u16]| {
            let zone = |port: u16| if port.is_multiple_of(2) { "a" } else { "b" };
            ports.iter().map(|p| endpoint(*p).with_zone(zone(*p))).collect::<Vec<_>>()
        };
        feed.publish(set_of(&set));
        let mut pool = pool(updates, BalanceSettings {
            zone: zoned.then(|| "a".into()),
            subset,
            breaker: BreakerSettings { consecutive_failures: 2, ..Default::default() },
            ..settings()
        });
        let mut now = Instant::now();
        let mut held = Vec::new();
        for (what, which, pause) in steps {
            now += MS * u32::try_from(pause).unwrap();
            match what {
                0..5 => {
                    let key = (which > 8).then(|| Affinity::of(which.to_le_bytes()));
                    if let Ok(place) = pool.pick(key, now) {
                        prop_assert!(set.contains(&place.service));
                        held.push(place.call);
                    }
                }
                5..7 if !held.is_empty() => {
                    held.swap_remove(usize::from(which) % held.len()).end(Class::Failure, None, now);
                }
                7 if !held.is_empty() => {
                    held.swap_remove(usize::from(which) % held.len()).end(Class::Success, None, now);
                }
                8 if !held.is_empty() => {
                    held.swap_remove(usize::from(which) % held.len()).give_up(|_| true, now);
                }
                _ => {
                    if set.contains(&which) {
                        set.retain(|port| *port != which);
                    } else {
                        set.push(which);
                    }
                    feed.publish(set_of(&set));
                }
            }
            prop_assert_eq!(pool.together.in_flight(), held.len());
            let of = |standing| {
                pool.members.iter().filter(|m| m.node.standing() == standing).count()
            };
            prop_assert_eq!(pool.together.change(|health| health.ejected()), of(Standing::Ejected));
        }
        drop(held);
        prop_assert_eq!(pool.together.in_flight(), 0);
    }
}

/// Packets to the address of a container that is gone are swallowed, and the one who finds it
/// out has waited. A rolling restart once failed half of the calls.
#[tokio::test(start_paused = true)]
async fn who_cannot_be_connected_to_gets_one_call_and_opens_no_circuit() {
    let mut world = World::of(pool(Updates::fixed(endpoints([0, 1, 2])), settings()));
    let zero_is_gone =
        |port| if port == 0 { (500 * MS, Class::Unreachable) } else { (5 * MS, Class::Success) };
    let ports = world.calls(2_000, zero_is_gone);
    assert_eq!(ports.iter().filter(|port| **port == 0).count(), 1);
    assert_eq!(ports.len(), 2_000, "and nobody was refused");
    let (away, ejected) = world.pool.together.change(|health| (health.away(), health.ejected()));
    assert_eq!((away, ejected), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_can_be_connected_to_it_is_said_with_the_time_that_it_is_worth_to_wait() {
    let mut pool = pool(Updates::fixed(endpoints([0, 1])), settings());
    let now = Instant::now();
    for second in 0..2 {
        let call = picked(&mut pool, now).call;
        call.end(Class::Unreachable, None, now + second * 1000 * MS);
    }
    let Err(Refused::Unreachable(error, dark)) = pool.pick(None, now + 1200 * MS) else {
        panic!("somebody was picked");
    };
    assert_eq!(error.endpoints, 2);
    assert_eq!(dark.until, now + 1500 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_not_taken_for_being_away() {
    let breaker = BreakerSettings { consecutive_failures: 1, ..BreakerSettings::default() };
    let mut pool =
        pool(Updates::fixed(endpoints([0, 1])), BalanceSettings { breaker, ..settings() });
    let now = Instant::now();
    picked(&mut pool, now).call.end(Class::Unreachable, None, now);
    picked(&mut pool, now).call.end(Class::Failure, None, now);
    assert!(matches!(pool.pick(None, now), Err(Refused::AllOpen(_))));
}
