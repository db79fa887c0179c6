//! The component that registers what a process listens on.

use std::time::Duration;

use chassis_core::{Component, Env, Listener, Ready, Shutdown};
use chassis_discovery::{Discovery, Endpoint, Registry, Resolver, Target};

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
    assert!(component.announces());
    let running = tokio::spawn(component.run(env, ready, shutdown));
    is_ready.await.unwrap();
    // "Every address" cannot be called; this machine can.
    assert_eq!(*set("http"), [Endpoint::new(([127, 0, 0, 1], 81).into())]);
    assert_eq!(*set("grpc"), [Endpoint::new(([10, 0, 0, 7], 82).into())]);
    assert!(set("admin").is_empty());

    trigger.shutdown(Duration::from_secs(1));
    running.await.unwrap().unwrap();
    assert!(set("http").is_empty() && set("grpc").is_empty());
}
