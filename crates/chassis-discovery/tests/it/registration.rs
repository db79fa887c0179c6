//! The component that registers what a process listens on.

use std::time::Duration;

use chassis_core::{Component, Env, Listener, Ready, Shutdown, Status};
use chassis_discovery::{Discovery, Endpoint, Feed, Registry, Resolver, Target, Updates};
use tokio::time::Instant;

#[tokio::test]
async fn listeners_are_registered_while_it_runs_but_not_the_admin_port() {
    let registry = Registry::new();
    let discovery = Discovery::in_process(registry.clone());
    let env = Env::test("greeter");
    for (protocol, address) in
        [("http", "0.0.0.0:81"), ("grpc", "10.0.0.7:82"), ("admin", "127.0.0.1:83")]
    {
        env.announce(Listener { protocol, address: address.parse().unwrap() });
    }
    let set = |protocol| registry.watch(&Target::new("greeter", protocol)).current();

    let (ready, is_ready) = Ready::channel();
    let (trigger, shutdown) = Shutdown::new();
    let component = Box::new(discovery.registration());
    let instance = env.info().instance.clone();
    assert!(component.announces());
    let running = tokio::spawn(component.run(env, ready, shutdown));
    is_ready.await.unwrap();
    let endpoint = |address: ([u8; 4], u16)| {
        Endpoint::new(address.into()).with_version("0.0.0").with_label("instance", &instance)
    };
    // "Every address" cannot be called; this machine can.
    assert_eq!(*set("http"), [endpoint(([127, 0, 0, 1], 81))]);
    assert_eq!(*set("grpc"), [endpoint(([10, 0, 0, 7], 82))]);
    assert!(set("admin").is_empty());

    trigger.shutdown(Duration::from_secs(1));
    running.await.unwrap().unwrap();
    assert!(set("http").is_empty() && set("grpc").is_empty());
}

#[tokio::test]
async fn the_end_of_one_service_takes_back_no_registration_of_its_neighbour() {
    let registry = Registry::new();
    let discovery = Discovery::in_process(registry.clone());
    let start = async |name: &'static str, address: &str| {
        let env = Env::test(name);
        env.announce(Listener { protocol: "http", address: address.parse().unwrap() });
        let (ready, is_ready) = Ready::channel();
        let (trigger, shutdown) = Shutdown::new();
        let running = tokio::spawn(Box::new(discovery.registration()).run(env, ready, shutdown));
        is_ready.await.unwrap();
        (running, trigger)
    };
    let known = |name| registry.watch(&Target::new(name, "http")).current().len();
    let (first, end_first) = start("catalog", "10.0.0.7:81").await;
    let (second, _end_second) = start("ordering", "10.0.0.7:82").await;
    assert_eq!((known("catalog"), known("ordering")), (1, 1));

    end_first.shutdown(Duration::from_secs(1));
    first.await.unwrap().unwrap();
    assert_eq!((known("catalog"), known("ordering")), (0, 1));
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    assert_eq!(known("ordering"), 0);
}

/// A source that a test can make fail.
struct Source(Feed);

impl Resolver for &'static Source {
    fn watch(&self, _: &Target) -> Updates {
        self.0.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_degrades_and_its_age_is_a_metric() {
    let source: &'static Source = Box::leak(Box::new(Source(Updates::channel().0)));
    source.0.publish([Endpoint::new(([10, 0, 0, 7], 80).into())]);
    let discovery = Discovery::with_resolver(source);
    let env = Env::test("caller");
    env.health().set_started();
    discovery.show(&env);
    let updates = discovery.resolver().watch(&Target::new("greeter", "http"));
    env.health().check_now().await;
    assert_eq!(env.health().status(), Status::Up);

    source.0.failed(Instant::now());
    tokio::time::advance(Duration::from_secs(7)).await;
    env.health().check_now().await;
    assert_eq!(env.health().status(), Status::Degraded);
    let report = env.health().report();
    let problem = report.checks[0].error.as_deref().unwrap();
    assert!(problem.contains("greeter/http is 7 s old"), "{problem}");
    let metrics = env.metrics().encode();
    for line in [
        "discovery_stale_seconds{protocol=\"http\",service=\"greeter\"} 7",
        "discovery_endpoints{protocol=\"http\",service=\"greeter\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(updates.current().len(), 1, "calls go on");
    source.0.succeeded();
    env.health().check_now().await;
    assert_eq!(env.health().status(), Status::Up);
}
