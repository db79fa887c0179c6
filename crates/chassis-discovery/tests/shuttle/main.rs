//! What the threads of a balancer share, under schedules that a machine would seldom show.
//!
//! Its modules are built once more here, on locks and atomics of shuttle, which runs each check
//! under thousands of random schedules and can replay the one that failed. The sources are the
//! very same files: only `sync` differs. The circuit breaker is the one of the library, so a
//! change of it is one step here; its own steps are checked where it is.

// Most of what the modules offer is not used here, and their own tests are not run.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]
#![allow(clippy::print_stdout, clippy::expect_used)]

mod sync;

#[path = "../../src/balance/mod.rs"]
mod balance;
#[path = "../../src/endpoint.rs"]
mod endpoint;
#[path = "../../src/resolver.rs"]
mod resolver;
#[path = "../../src/selector.rs"]
mod selector;
#[path = "../../src/target.rs"]
mod target;

use std::time::Duration;

use chassis_resilience::Class;
use chassis_resilience::breaker::BreakerSettings;
use shuttle::{Config, Runner, scheduler::RandomScheduler, sync::Arc, thread};
use tokio::time::Instant;

use balance::BalanceSettings;
use balance::health::{Health, Shares, Standing};
use balance::node::{Node, Together};
use balance::pool::{Picked, Pool};
use endpoint::Endpoint;
use resolver::Updates;
use selector::Selector;
use sync::{AtomicUsize, Mutex, Ordering};
use target::Target;

const SCHEDULES: usize = 2_000;
const THREADS: usize = 3;

const CHECKS: [(&str, fn()); 4] = [
    ("each_call_under_way_is_counted_once_however_it_ends", in_flight),
    ("no_more_are_ejected_than_may_be_and_the_last_state_wins", ejection),
    ("who_has_left_counts_no_more_whatever_its_last_calls_bring", leaving),
    ("a_call_goes_to_a_member_of_a_set_that_holds_meanwhile", sets),
];

fn main() {
    for (name, check) in CHECKS {
        let mut config = Config::new();
        // Weaker orderings are only used for counts that nothing depends on, and for copies of
        // what changes under a lock.
        config.silence_warnings = true;
        Runner::new(RandomScheduler::new(SCHEDULES), config).run(check);
        println!("shuttle {name} ... ok under {SCHEDULES} schedules");
    }
}

/// Runs `work` on three threads at the same time.
fn together(work: impl Fn(usize) + Clone + Send + 'static) {
    let threads = [(); THREADS].map({
        let mut next = 0;
        move |()| {
            let (work, nth) = (work.clone(), next);
            next += 1;
            thread::spawn(move || work(nth))
        }
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// One failure opens a circuit, one good trial closes it.
fn settings() -> BalanceSettings {
    let breaker = BreakerSettings {
        consecutive_failures: 1,
        half_open_permits: 1,
        successes_to_close: 1,
        ..BreakerSettings::default()
    };
    BalanceSettings { breaker, seed: 7, ..BalanceSettings::default() }
}

/// So many endpoints, of which half may be ejected, from an instant on.
fn nodes(count: u16) -> (std::sync::Arc<Together>, Vec<std::sync::Arc<Node>>, Instant) {
    let mut health = Health::new(Shares { max_ejected: 0.5, panic_below: 0.25 });
    health.resize(usize::from(count));
    let all = std::sync::Arc::new(Together::new(health, || {}));
    let now = Instant::now();
    let node = |port| {
        let address = ([127, 0, 0, 1], port).into();
        Node::new(format!("greeter@{port}"), address, &settings(), all.clone(), now)
    };
    let nodes = (0..count).map(node).collect();
    (all, nodes, now)
}

fn in_flight() {
    let (all, nodes, now) = nodes(2);
    let shared = (all.clone(), nodes.clone());
    together(move |nth| {
        let (all, nodes) = &shared;
        for round in 0..2 {
            let node = &nodes[(nth + round) % 2];
            let call = node.begin(1, false, true, now).unwrap();
            assert!((1..=THREADS).contains(&node.in_flight()));
            assert!((1..=THREADS).contains(&all.in_flight()));
            match nth {
                0 => call.end(Class::Success, None, now),
                1 => call.give_up(|_| true, now),
                _ => drop(call),
            }
        }
    });
    assert_eq!(nodes.iter().map(|node| node.in_flight()).sum::<usize>(), 0);
    assert_eq!(all.in_flight(), 0);
}

fn ejection() {
    let (all, nodes, start) = nodes(2);
    let shared = (all.clone(), nodes.clone());
    // So late that every open circuit lets a trial through.
    let later = start + 3 * settings().breaker.open_max;
    together(move |nth| {
        let (all, nodes) = &shared;
        for round in 0..4 {
            let (class, now) =
                if nth == 0 { (Class::Success, later) } else { (Class::Failure, start) };
            if let Ok(call) = nodes[(nth + round) % 2].begin(1, false, false, now) {
                call.end(class, None, now);
            }
            let ejected = all.change(|health| health.ejected());
            assert!(ejected <= 1, "{ejected} of 2 are ejected");
        }
    });
    let count = |standing| nodes.iter().filter(|node| node.standing() == standing).count();
    let (ejected, closed, mode) =
        all.change(|health| (health.ejected(), health.closed(), health.mode()));
    assert_eq!((count(Standing::Ejected), count(Standing::In)), (ejected, closed));
    assert_eq!(all.mode(), mode);
    for node in &nodes {
        // No trial is due this early, so whom a circuit lets through has a closed one.
        assert_eq!(node.standing() == Standing::In, node.has_trial(start));
    }
}

fn leaving() {
    let (all, nodes, now) = nodes(3);
    let shared = nodes.clone();
    together(move |nth| {
        let node = &shared[0];
        match nth {
            0 => node.leave(),
            1 => {
                for class in [Class::Failure, Class::Unreachable] {
                    node.begin(1, false, true, now).unwrap().end(class, None, now);
                }
            }
            _ => {
                node.begin(1, false, true, now).unwrap().end(Class::Unreachable, None, now);
                node.regain(now);
            }
        }
    });
    assert_eq!(nodes[0].standing(), Standing::Gone);
    let counts = all.change(|health| (health.ejected(), health.away(), health.closed()));
    assert_eq!(counts, (0, 0, 3), "as before it came");
}

/// The sets that follow each other; one that goes may fail until the end.
const SETS: [[u16; 2]; 4] = [[0, 1], [1, 2], [2, 3], [3, 0]];

fn sets() {
    let (feed, updates) = Updates::channel();
    let members = |set: usize| SETS[set].map(|port| Endpoint::new(([127, 0, 0, 1], port).into()));
    feed.publish(members(0));
    let port = |endpoint: &Endpoint| endpoint.address.port();
    let target = Target::new("greeter", "http");
    let pool = Arc::new(Mutex::new(Pool::new(target, updates, Box::new(port), settings())));
    let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let now = Instant::now();
    let pick = {
        let (pool, begun, done) = (pool.clone(), begun.clone(), done.clone());
        move |class| {
            let first = done.load(Ordering::SeqCst);
            let picked = pool.lock().pick(None, now);
            let last = begun.load(Ordering::SeqCst);
            let Ok(Picked { service, call }) = picked else { return };
            let held = &SETS[first..=last];
            assert!(held.iter().flatten().any(|port| *port == service), "{service} of {held:?}");
            call.end(class, None, now);
        }
    };
    let (publish, shared) = (Arc::new(feed), pick.clone());
    together(move |nth| {
        for n in 1..SETS.len() {
            match nth {
                0 => {
                    begun.store(n, Ordering::SeqCst);
                    publish.publish(members(n));
                    done.store(n, Ordering::SeqCst);
                }
                1 => shared(Class::Success),
                // Circuits open while the sets change.
                _ => shared(Class::Failure),
            }
        }
    });
    (0..8).for_each(|_| pick(Class::Success));
}
