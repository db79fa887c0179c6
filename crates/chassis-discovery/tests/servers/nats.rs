//! NATS, the real one.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Component, Env, Listener, Ready, Result, Shutdown, Status};
use chassis_discovery::conformance::{Connection, Place, SCENARIOS, run_all};
use chassis_discovery::{Discovery, DiscoveryConfig, Mode, Nats, NatsConfig, Target};
use chassis_test::{eventually, servers};

use super::registry;

const SOON: Duration = Duration::from_secs(20);

fn config(server: &servers::Nats) -> NatsConfig {
    NatsConfig { url: server.url().into(), ..NatsConfig::default() }
}

struct Real(servers::Nats);

impl Place for Real {
    fn connect(&self) -> Result<Connection> {
        let nats = Nats::new(&config(&self.0), &registry())?;
        Ok(Connection { resolver: Arc::new(nats.clone()), registrar: Arc::new(nats) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.0.stop() })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.restart())
    }

    fn lease(&self) -> Option<Duration> {
        Some(registry().lease)
    }

    fn grace(&self) -> Duration {
        registry().grace
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_passes_all_scenarios() {
    let server = servers::Nats::start().await;
    assert_eq!(run_all(Real(server)).await, Ok(SCENARIOS.len()));
}

/// Registers as a process does, is found, and is gone when the process leaves.
pub(super) async fn a_service_is_found_by_its_name(discovery: &Discovery) {
    let env = Env::test("greeter");
    env.announce(Listener { protocol: "http", address: "127.0.0.1:81".parse().unwrap() });
    env.health().set_started();
    let (ready, is_ready) = Ready::channel();
    let (trigger, shutdown) = Shutdown::new();
    let registration = Box::new(discovery.registration());
    let running = tokio::spawn(registration.run(env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    let target = Target::new("greeter", "http");
    let mut updates = discovery.resolver().watch(&target.version("0.0.0"));
    let mut count = async |wanted: usize| {
        eventually(&format!("{wanted} endpoints"), SOON, async || {
            if updates.current().len() != wanted || !updates.is_known() {
                updates.changed().await;
            }
            (updates.current().len() == wanted && updates.is_known()).then_some(())
        })
        .await;
    };
    count(1).await;
    env.health().check_now().await;
    assert_eq!(env.health().status(), Status::Up);
    let shown = env.operations().run("discovery", serde_json::Value::Null, false).await.unwrap();
    assert_eq!(shown["targets"][0]["endpoints"][0]["address"], "127.0.0.1:81");
    assert!(env.metrics().encode().contains("discovery_unregistered_seconds"));
    trigger.shutdown(SOON);
    running.await.unwrap().unwrap();
    count(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_nats_finds_and_registers() {
    let server = servers::Nats::start().await;
    let config = DiscoveryConfig {
        mode: Mode::Nats,
        registry: registry(),
        nats: config(&server),
        ..DiscoveryConfig::default()
    };
    a_service_is_found_by_its_name(&Discovery::new(&config).unwrap()).await;
}

/// A bucket belongs to all: who comes with another lease goes by the bucket's.
#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_decides_the_lease() {
    use chassis_discovery::{Endpoint, Registrar, RegistryConfig, Resolver};
    let server = servers::Nats::start().await;
    let short = Nats::new(&config(&server), &registry()).unwrap();
    let long = RegistryConfig { lease: Duration::from_secs(600), ..registry() };
    let long = Nats::new(&config(&server), &long).unwrap();
    let target = Target::new("greeter", "http");
    let endpoint = |port| Endpoint::new(([10, 0, 0, 1], port).into());
    let _first = short.register(target.clone(), endpoint(1)).await.unwrap();
    let _second = long.register(target.clone(), endpoint(2)).await.unwrap();
    let mut updates = short.watch(&target);
    eventually("both are there", SOON, async || (updates.current().len() == 2).then_some(())).await;
    let gone = tokio::time::timeout(registry().lease * 2, async {
        while updates.current().len() == 2 {
            updates.changed().await;
        }
    });
    assert!(gone.await.is_err(), "the heartbeat follows the bucket's age: {:?}", updates.current());
}
