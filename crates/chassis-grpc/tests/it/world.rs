//! A running server, and ways to reach it.

use std::net::SocketAddr;
use std::time::Duration;

use chassis_core::{Component, Env, Ready, Result, Shutdown, ShutdownTrigger};
use chassis_discovery::{Discovery, Endpoint, Lease, Registrar, Registry, Target};
use chassis_grpc::{Server, ServerConfig};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::greeter::Greeter;

/// How long anything may take that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) env: Env,
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig { port: 0, ..ServerConfig::default() }
}

impl Running {
    pub(crate) async fn start(greeter: Greeter) -> Running {
        Running::serve(Server::new(&config(), Routes::new(greeter))).await
    }

    pub(crate) async fn serve(server: Server) -> Running {
        Running::serve_in(Env::test("greeter"), server).await
    }

    pub(crate) async fn serve_in(env: Env, server: Server) -> Running {
        let (ready, is_ready) = Ready::channel();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(Box::new(server).run(env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        let listeners = env.listeners();
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0].protocol, "grpc");
        Running { address: listeners[0].address, env, trigger, task }
    }

    /// tonic's own channel, without anything of ours.
    pub(crate) fn plain(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect_lazy()
    }

    pub(crate) fn begin_shutdown(&self, drain: Duration) {
        self.trigger.shutdown(drain);
    }

    pub(crate) async fn ended(self) {
        let ended = tokio::time::timeout(SOON, self.task).await;
        ended.expect("the server still runs").unwrap().unwrap();
    }
}

/// Endpoints of the service `greeter`.
pub(crate) struct Endpoints {
    registry: Registry,
    leases: Vec<Lease>,
}

impl Endpoints {
    pub(crate) async fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Endpoints {
        let mut endpoints = Endpoints { registry: Registry::new(), leases: Vec::new() };
        for address in addresses {
            endpoints.add(address).await;
        }
        endpoints
    }

    pub(crate) async fn add(&mut self, address: SocketAddr) {
        let target = Target::new("greeter", "grpc");
        let lease = self.registry.register(target, Endpoint::new(address));
        self.leases.push(lease.await.unwrap());
    }

    pub(crate) fn remove_first(&mut self) {
        drop(self.leases.remove(0));
    }

    pub(crate) fn discovery(&self) -> Discovery {
        Discovery::in_process(self.registry.clone())
    }
}

/// An address at which nobody listens.
pub(crate) async fn dead_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Waits until something is true.
pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(SOON, wait).await.is_err() {
        panic!("not yet: {what}");
    }
}
