//! EndpointSlices from an API server in the test.

mod server;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use chassis_discovery::conformance::{Connection, Place, SCENARIOS, run_all};
use chassis_discovery::{
    Endpoint, Kubernetes, KubernetesConfig, Registrar, RegistryConfig, Resolver, Target, Updates,
};
use chassis_test::{Direction, FaultProxy, eventually};
use tokio::time::Instant;

use self::server::Cluster;

const SOON: Duration = Duration::from_secs(20);

fn registry() -> RegistryConfig {
    RegistryConfig {
        grace: Duration::from_secs(3),
        // Far, so that it is the watch that is tested.
        resync: Duration::from_secs(600),
        timeout: Duration::from_secs(1),
        ..RegistryConfig::default()
    }
}

fn config(proxy: &FaultProxy) -> KubernetesConfig {
    KubernetesConfig {
        url: format!("http://{}", proxy.address()),
        namespace: "prod".to_owned(),
        name: "{service}--{protocol}".to_owned(),
        token_file: String::new(),
        ..KubernetesConfig::default()
    }
}

struct World {
    cluster: Cluster,
    proxy: FaultProxy,
}

impl World {
    async fn start() -> World {
        let (cluster, address) = Cluster::start().await;
        World { cluster, proxy: FaultProxy::start(address.to_string()).await }
    }

    fn kubernetes(&self) -> Kubernetes {
        Kubernetes::new(&config(&self.proxy), &registry()).unwrap()
    }
}

impl Place for World {
    fn connect(&self) -> Result<Connection> {
        let kubernetes = Kubernetes::new(&config(&self.proxy), &registry())?;
        Ok(Connection { resolver: Arc::new(kubernetes), registrar: Arc::new(self.cluster.clone()) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.proxy.cut() })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.proxy.heal() })
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    /// A slice says where an endpoint is; weights and labels of one's own have no
    /// place there.
    fn holds(&self, endpoint: Endpoint) -> Endpoint {
        Endpoint::new(endpoint.address).with_zone(endpoint.zone.unwrap_or_default())
    }

    fn grace(&self) -> Duration {
        registry().grace
    }
}

fn target() -> Target {
    Target::new("greeter", "http")
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, number], 8080).into())
}

async fn until(updates: &mut Updates, numbers: impl IntoIterator<Item = u8>) {
    let wanted: Vec<Endpoint> = numbers.into_iter().map(endpoint).collect();
    eventually(&format!("the set is {wanted:?}"), SOON, async || {
        (updates.is_known() && *updates.current() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_passes_all_scenarios() {
    assert_eq!(run_all(World::start().await).await, Ok(SCENARIOS.len()));
}

#[tokio::test]
async fn pages_of_a_list_are_one_set() {
    let world = World::start().await;
    let mut leases = Vec::new();
    for number in 1..=50 {
        leases.push(world.cluster.register(target(), endpoint(number)).await.unwrap());
    }
    until(&mut world.kubernetes().watch(&target()), 1..=50).await;
    assert_eq!(world.cluster.seen().lists, 3, "eight slices, three a page");
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_its_bookmark() {
    let world = World::start().await;
    let kubernetes = world.kubernetes();
    let mut updates = kubernetes.watch(&target());
    let _first = world.cluster.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, [1]).await;
    let lists = world.cluster.seen().lists;
    world.cluster.bookmark();
    // What happened before is forgotten: only who heard the bookmark can go on.
    let _second = world.cluster.register(target(), endpoint(2)).await.unwrap();
    until(&mut updates, [1, 2]).await;
    let marked = world.cluster.bookmark();
    let watches = world.cluster.seen().watches;
    eventually("the bookmark is told", SOON, async || {
        (world.cluster.seen().told >= marked).then_some(())
    })
    .await;
    world.cluster.compact();
    world.cluster.end_watches();
    eventually("it watches again", SOON, async || {
        (world.cluster.seen().watches > watches).then_some(())
    })
    .await;
    let _third = world.cluster.register(target(), endpoint(3)).await.unwrap();
    until(&mut updates, [1, 2, 3]).await;
    let seen = world.cluster.seen();
    assert_eq!((seen.lists, seen.gone), (lists, 0), "it listed nothing anew");
    assert!(seen.from >= 200, "from the second bookmark: {}", seen.from);
    assert!(updates.stale_for(Instant::now()).is_none());
}

#[tokio::test]
async fn a_place_that_is_gone_is_listed_anew() {
    let world = World::start().await;
    let kubernetes = world.kubernetes();
    let mut updates = kubernetes.watch(&target());
    let first = world.cluster.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, [1]).await;
    world.proxy.cut();
    eventually("the outage is noticed", SOON, async || updates.stale_for(Instant::now())).await;
    let _second = world.cluster.register(target(), endpoint(2)).await.unwrap();
    first.release().await;
    world.cluster.compact();
    world.proxy.heal();
    until(&mut updates, [2]).await;

    // And while it watches: the next watch begins at what has been forgotten.
    let gone = world.cluster.seen().gone;
    let _third = world.cluster.register(Target::new("other", "http"), endpoint(9)).await.unwrap();
    world.cluster.compact();
    world.cluster.end_watches();
    eventually("it was told that its place is gone", SOON, async || {
        (world.cluster.seen().gone > gone).then_some(())
    })
    .await;
    let _fourth = world.cluster.register(target(), endpoint(4)).await.unwrap();
    until(&mut updates, [2, 4]).await;
}

#[tokio::test]
async fn a_silent_server_is_found_out() {
    let world = World::start().await;
    let registry = RegistryConfig { resync: Duration::from_secs(2), ..registry() };
    let kubernetes = Kubernetes::new(&config(&world.proxy), &registry).unwrap();
    let mut updates = kubernetes.watch(&target());
    let _lease = world.cluster.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, [1]).await;
    world.proxy.silence(Direction::ToClient);
    eventually("the outage is noticed", SOON, async || updates.stale_for(Instant::now())).await;
    assert_eq!(*updates.current(), [endpoint(1)]);
    world.proxy.heal();
    let _second = world.cluster.register(target(), endpoint(2)).await.unwrap();
    until(&mut updates, [1, 2]).await;
}

#[tokio::test]
async fn the_token_is_read_again_when_it_is_replaced() {
    let world = World::start().await;
    world.cluster.set_token("first");
    let folder = std::env::temp_dir().join(format!("chassis-token-{}", fastrand::u64(..)));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("token");
    let write = |token: &str| {
        std::fs::File::create(&file).unwrap().write_all(token.as_bytes()).unwrap();
    };
    write("first\n");
    let config =
        KubernetesConfig { token_file: file.to_str().unwrap().to_owned(), ..config(&world.proxy) };
    let kubernetes = Kubernetes::new(&config, &registry()).unwrap();
    let mut updates = kubernetes.watch(&target());
    until(&mut updates, []).await;
    world.cluster.set_token("second");
    world.cluster.end_watches();
    eventually("the old token is refused", SOON, async || updates.stale_for(Instant::now())).await;
    write("second\n");
    let _lease = world.cluster.register(target(), endpoint(1)).await.unwrap();
    until(&mut updates, [1]).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_process_outside_a_cluster_is_told_what_to_set() {
    let config = KubernetesConfig { url: "http://127.0.0.1:1".into(), ..Default::default() };
    let error = Kubernetes::new(&config, &registry()).err().unwrap();
    assert!(error.message().contains("discovery.kubernetes.namespace"), "{}", error.message());
}
