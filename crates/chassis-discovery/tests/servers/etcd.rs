//! etcd, the real one.

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxFuture, Result};
use chassis_discovery::conformance::{Connection, Place, SCENARIOS, run_all};
use chassis_discovery::{
    Discovery, DiscoveryConfig, Endpoint, Etcd, EtcdConfig, Mode, Registrar, RegistryConfig,
    Resolver, Target,
};
use chassis_test::{FaultProxy, eventually, servers};

use super::registry;

const SOON: Duration = Duration::from_secs(20);

fn config(url: String) -> EtcdConfig {
    EtcdConfig { urls: vec![url], ..EtcdConfig::default() }
}

struct Real(Arc<servers::Etcd>);

impl Place for Real {
    fn connect(&self) -> Result<Connection> {
        let etcd = Etcd::new(&config(self.0.url()), &registry())?;
        Ok(Connection { resolver: Arc::new(etcd.clone()), registrar: Arc::new(etcd) })
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
async fn etcd_passes_all_scenarios() {
    let server = Arc::new(servers::Etcd::start().await);
    assert_eq!(run_all(Real(server)).await, Ok(SCENARIOS.len()));
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new(([10, 0, 0, 1], port).into())
}

async fn until(resolver: &dyn Resolver, target: &Target, ports: &[u16]) {
    let mut updates = resolver.watch(target);
    let wanted: Vec<Endpoint> = ports.iter().map(|port| endpoint(*port)).collect();
    eventually(&format!("the set is {wanted:?}"), SOON, async || {
        if *updates.current() == wanted {
            return Some(());
        }
        updates.changed().await;
        (*updates.current() == wanted).then_some(())
    })
    .await;
}

/// Asks etcd's gateway without our code.
async fn post(url: &str, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The watch is cut, etcd forgets the revisions in between, and the set is still
/// right: a watch from a compacted revision is asked anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_revision_costs_no_change() {
    let server = servers::Etcd::start().await;
    let proxy = FaultProxy::start(server.url().strip_prefix("http://").unwrap()).await;
    let far = RegistryConfig { resync: Duration::from_secs(600), ..registry() };
    let reader = Etcd::new(&config(format!("http://{}", proxy.address())), &far).unwrap();
    let writer = Etcd::new(&config(server.url()), &registry()).unwrap();
    let target = Target::new("greeter", "http");
    let first = writer.register(target.clone(), endpoint(1)).await.unwrap();
    until(&reader, &target, &[1]).await;

    proxy.cut();
    let second = writer.register(target.clone(), endpoint(2)).await.unwrap();
    first.release().await;
    let range = post(&server.url(), "/v3/kv/range", r#"{"key":"AA==","range_end":"AA=="}"#).await;
    let revision = range.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap();
    let compacted =
        post(&server.url(), "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#)).await;
    assert!(compacted.contains("200 OK"), "{compacted}");
    proxy.heal();
    until(&reader, &target, &[2]).await;
    second.release().await;
    until(&reader, &target, &[]).await;
}

/// Somebody deletes the key while its lease lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_written_again() {
    let server = servers::Etcd::start().await;
    let etcd = Etcd::new(&config(server.url()), &registry()).unwrap();
    let target = Target::new("greeter", "http");
    let _lease = etcd.register(target.clone(), endpoint(1)).await.unwrap();
    until(&etcd, &target, &[1]).await;
    // Every key: from the zero byte on.
    let deleted = r#"{"key":"AA==","range_end":"AA=="}"#;
    assert!(post(&server.url(), "/v3/kv/deleterange", deleted).await.contains("\"deleted\":\"1\""));
    until(&etcd, &target, &[]).await;
    until(&etcd, &target, &[1]).await;
}

/// A connection that is dead without a sign is found out by asking anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_found_out() {
    let server = servers::Etcd::start().await;
    let proxy = FaultProxy::start(server.url().strip_prefix("http://").unwrap()).await;
    let reader = Etcd::new(&config(format!("http://{}", proxy.address())), &registry()).unwrap();
    let writer = Etcd::new(&config(server.url()), &registry()).unwrap();
    let target = Target::new("greeter", "http");
    let _first = writer.register(target.clone(), endpoint(1)).await.unwrap();
    until(&reader, &target, &[1]).await;
    proxy.silence(chassis_test::Direction::ToClient);
    let updates = reader.watch(&target);
    eventually("the set is known to be stale", SOON, async || {
        updates.stale_for(tokio::time::Instant::now())
    })
    .await;
    let _second = writer.register(target.clone(), endpoint(2)).await.unwrap();
    proxy.heal();
    until(&reader, &target, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_made_and_a_wrong_one_is_refused_at_once() {
    let server = servers::Etcd::start().await;
    let url = server.url();
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let answer = post(&url, path, body).await;
        assert!(answer.contains("200 OK"), "{path}: {answer}");
    }
    let login = |password: &str| EtcdConfig {
        user: "root".to_owned(),
        password: password.into(),
        ..config(url.clone())
    };
    let target = Target::new("greeter", "http");
    let etcd = Etcd::new(&login("secret"), &registry()).unwrap();
    let _lease = etcd.register(target.clone(), endpoint(1)).await.unwrap();
    until(&etcd, &target, &[1]).await;
    let wrong = Etcd::new(&login("wrong"), &registry()).unwrap();
    let error = wrong.register(target.clone(), endpoint(2)).await.unwrap_err();
    assert!(error.message().starts_with("etcd at 127.0.0.1"), "{}", error.chain());
    assert!(!error.chain().contains("wrong"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_etcd_finds_and_registers() {
    let server = servers::Etcd::start().await;
    let config = DiscoveryConfig {
        mode: Mode::Etcd,
        registry: registry(),
        etcd: config(server.url()),
        ..DiscoveryConfig::default()
    };
    super::nats::a_service_is_found_by_its_name(&Discovery::new(&config).unwrap()).await;
}
