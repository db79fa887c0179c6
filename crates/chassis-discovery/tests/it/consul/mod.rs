//! Consul, as its published API describes it.

mod server;

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Code, Result};
use chassis_discovery::conformance::{Connection, Place, SCENARIOS, run_all};
use chassis_discovery::{
    Consul, ConsulConfig, Discovery, DiscoveryConfig, Endpoint, Mode, Registrar, RegistryConfig,
    Resolver, Target, Updates,
};
use chassis_test::{Direction, FaultProxy, eventually};
use tokio::time::Instant;

use self::server::Agent;

const SOON: Duration = Duration::from_secs(20);

fn registry() -> RegistryConfig {
    RegistryConfig {
        lease: Duration::from_secs(2),
        grace: Duration::from_secs(6),
        resync: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
    }
}

fn config(proxy: &FaultProxy) -> ConsulConfig {
    ConsulConfig {
        url: format!("http://{}", proxy.address()),
        wait: Duration::from_secs(2),
        ..ConsulConfig::default()
    }
}

struct World {
    agent: Agent,
    proxy: FaultProxy,
}

impl World {
    async fn start() -> World {
        let (agent, address) = Agent::start().await;
        World { agent, proxy: FaultProxy::start(address.to_string()).await }
    }

    fn consul(&self) -> Consul {
        Consul::new(&config(&self.proxy), &registry()).unwrap()
    }
}

impl Place for World {
    fn connect(&self) -> Result<Connection> {
        let consul = Consul::new(&config(&self.proxy), &registry())?;
        Ok(Connection { resolver: Arc::new(consul.clone()), registrar: Arc::new(consul) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.proxy.cut() })
    }

    /// It comes back with nothing, as an agent without a data folder does.
    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.agent.forget();
            self.proxy.heal();
        })
    }

    fn lease(&self) -> Option<Duration> {
        Some(registry().lease)
    }

    fn grace(&self) -> Duration {
        registry().grace
    }
}

fn target() -> Target {
    Target::new("greeter", "http")
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into())
}

async fn until(updates: &mut Updates, wanted: &[Endpoint]) {
    eventually(&format!("the set is {wanted:?}"), SOON, async || {
        (updates.is_known() && *updates.current() == *wanted).then_some(())
    })
    .await;
}

async fn stale(updates: &Updates, wanted: bool) {
    eventually(&format!("stale: {wanted}"), SOON, async || {
        (updates.stale_for(Instant::now()).is_some() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_passes_all_scenarios() {
    assert_eq!(run_all(World::start().await).await, Ok(SCENARIOS.len()));
}

#[tokio::test]
async fn an_index_that_goes_back_loses_no_change() {
    let world = World::start().await;
    let consul = world.consul();
    let mut updates = consul.watch(&target());
    let _first = consul.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, &[endpoint(1)]).await;
    // The servers were replaced: who waited for a greater index would wait for long.
    world.agent.forget();
    let _second = consul.register(target(), endpoint(2)).await.unwrap();
    assert!(world.agent.index() < 5);
    until(&mut updates, &[endpoint(1), endpoint(2)]).await;
}

#[tokio::test]
async fn errors_and_a_lost_leader_keep_the_set_and_age_it() {
    let world = World::start().await;
    let consul = world.consul();
    let mut updates = consul.watch(&target());
    let _lease = consul.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, &[endpoint(1)]).await;
    for fault in [Agent::set_failing as fn(&Agent, bool), Agent::set_leaderless] {
        fault(&world.agent, true);
        world.agent.tick();
        stale(&updates, true).await;
        assert_eq!(*updates.current(), [endpoint(1)]);
        fault(&world.agent, false);
        stale(&updates, false).await;
    }
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up() {
    let world = World::start().await;
    let consul = world.consul();
    let mut updates = consul.watch(&target());
    let lease = consul.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, &[endpoint(1)]).await;
    world.proxy.silence(Direction::ToClient);
    stale(&updates, true).await;
    eventually("the lease says that it is lost", SOON, async || lease.lost_for(Instant::now()))
        .await;
    assert_eq!(*updates.current(), [endpoint(1)]);
    world.proxy.heal();
    stale(&updates, false).await;
    until(&mut updates, &[endpoint(1)]).await;
}

#[tokio::test]
async fn a_busy_catalogue_is_not_asked_in_a_loop() {
    let world = World::start().await;
    let consul = world.consul();
    let mut updates = consul.watch(&target());
    until(&mut updates, &[]).await;
    let agent = world.agent.clone();
    let churn = tokio::spawn(async move {
        loop {
            agent.tick();
            tokio::task::yield_now().await;
        }
    });
    let before = world.agent.queries();
    // Time has to pass for a rate to show.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = world.agent.queries() - before;
    churn.abort();
    assert!((2..=40).contains(&asked), "{asked} questions in two seconds");
}

#[tokio::test]
async fn a_refusal_is_an_error_at_once_and_a_token_opens() {
    let world = World::start().await;
    world.agent.set_token("secret");
    let error = world.consul().register(target(), endpoint(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let config = ConsulConfig { token: "secret".into(), ..config(&world.proxy) };
    let consul = Consul::new(&config, &registry()).unwrap();
    let _lease = consul.register(target(), endpoint(1)).await.unwrap();
    until(&mut consul.watch(&target()), &[endpoint(1)]).await;
}

#[tokio::test]
async fn the_mode_consul_finds_what_is_registered() {
    let world = World::start().await;
    let discovery = Discovery::new(&DiscoveryConfig {
        mode: Mode::Consul,
        registry: registry(),
        consul: config(&world.proxy),
        ..DiscoveryConfig::default()
    })
    .unwrap();
    let _lease = world.consul().register(target(), endpoint(1).with_version("2")).await.unwrap();
    let mut updates = discovery.resolver().watch(&target().version("2"));
    until(&mut updates, &[endpoint(1).with_version("2")]).await;
}

#[test]
fn a_bad_setting_is_named() {
    let case = |change: fn(&mut ConsulConfig)| {
        let mut config = ConsulConfig::default();
        change(&mut config);
        Consul::new(&config, &RegistryConfig::default()).err().unwrap().message().to_owned()
    };
    let message = case(|config| config.name = "{service}".into());
    assert!(
        message.contains("discovery.consul.name") && message.contains("{protocol}"),
        "{message}"
    );
    let message = case(|config| config.wait = Duration::ZERO);
    assert!(message.contains("discovery.consul.wait is 0ns, allowed is 1s to 600s"), "{message}");
    let message = case(|config| config.url = "https://consul:8501".into());
    assert!(message.contains("discovery.consul.tls.ca_file"), "{message}");
    let message = case(|config| config.url = "consul:8500".into());
    assert!(message.starts_with("discovery.consul: "), "{message}");
}
