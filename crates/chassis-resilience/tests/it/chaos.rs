//! Chaos: each fault does what it says, and nothing happens unless somebody allowed it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chassis_resilience::{
    BoxError,
    chaos::{Chaos, ChaosLayer, ChaosRefused, Fault, Injected, Rule},
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::MS;

fn rule(fault: Fault) -> Rule {
    Rule { target: "greeter".into(), share: 1.0, fault, lasts: 600_000 * MS }
}

/// A callee that counts its calls.
fn greeter(
    chaos: &Chaos,
) -> (impl Service<u32, Response = u32, Error = BoxError> + Clone + use<>, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let callee = service_fn(move |request: u32| {
        let _ = count.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, BoxError>(request) }
    });
    let target = |_: &u32| "greeter".to_owned();
    (ChaosLayer::new(chaos.clone(), target, |request: &u32| Some(*request)).layer(callee), calls)
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_unless_enabled() {
    let chaos = Chaos::disabled();
    assert_eq!(chaos.set("a", rule(Fault::Error)), Err(ChaosRefused::Disabled));
    let (service, _) = greeter(&chaos);
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    assert!(chaos.list().is_empty() && !chaos.clear("a"));
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    let chaos = Chaos::enabled();
    let (service, calls) = greeter(&chaos);
    let call = || service.clone().oneshot(1);
    let started = Instant::now();
    assert_eq!(call().await.unwrap(), 1);
    assert_eq!(started.elapsed(), Duration::ZERO);

    chaos.set("fault", rule(Fault::Latency { least: 100 * MS, most: 200 * MS })).unwrap();
    assert_eq!(call().await.unwrap(), 1);
    assert!(started.elapsed() >= 100 * MS && started.elapsed() <= 201 * MS);

    chaos.set("fault", rule(Fault::Error)).unwrap();
    assert!(call().await.unwrap_err().is::<Injected>());

    chaos.set("fault", rule(Fault::Drop)).unwrap();
    assert!(tokio::time::timeout(59_000 * MS, call()).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 2, "what fails or is lost is never sent");

    chaos.set("fault", rule(Fault::Duplicate)).unwrap();
    assert_eq!(call().await.unwrap(), 1);
    assert_eq!(calls.load(Ordering::Relaxed), 4);

    assert_eq!((chaos.list().len(), chaos.list()[0].hits), (1, 1));
    assert!(chaos.clear("fault"));
    assert_eq!(call().await.unwrap(), 1);
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_rule_ends() {
    let chaos = Chaos::enabled();
    let (service, _) = greeter(&chaos);
    chaos.set("fault", rule(Fault::Error)).unwrap();
    assert!(service.clone().oneshot(1).await.is_err());
    tokio::time::advance(600_000 * MS).await;
    assert_eq!(service.oneshot(1).await.unwrap(), 1);
    assert!(chaos.list().is_empty());
}
