//! Services, a gateway, and a client that speaks bytes.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use chassis_core::{Component, Env, Ready, Shutdown, ShutdownTrigger};
use chassis_discovery::{Discovery, Endpoint, Lease, Registrar, Registry, Target};
use chassis_gateway::Gateway;
use chassis_http::{Client, Server, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A system in a registry of its own; its servers stop when it is dropped.
#[derive(Default)]
pub(crate) struct System {
    registry: Registry,
    running: Vec<(ShutdownTrigger, Lease)>,
}

impl System {
    /// Starts a service and gives a client of it.
    pub(crate) async fn service(&mut self, name: &'static str, router: Router) -> Client {
        self.start(name, router).await;
        self.client(name)
    }

    /// Starts the gateway.
    pub(crate) async fn gateway(&mut self, gateway: Gateway) -> Running {
        self.start("gateway", gateway.into_router()).await
    }

    async fn start(&mut self, name: &'static str, router: Router) -> Running {
        let env = Env::test(name);
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let config = ServerConfig { port: 0, ..ServerConfig::default() };
        let server = Box::new(Server::new(&config, router));
        tokio::spawn(server.run(env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        let address = env.listeners()[0].address;
        let lease = self
            .registry
            .register(Target::new(name, "http"), Endpoint::new(address))
            .await
            .unwrap();
        self.running.push((trigger, lease));
        Running { env, address }
    }

    /// A client of a service that may not be there.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client::new(name, &Discovery::in_process(self.registry.clone()))
    }

    /// A client of a service that is registered where nobody listens.
    pub(crate) async fn dead(&mut self, name: &str) -> Client {
        let address = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let target = Target::new(name, "http");
        let lease = self.registry.register(target, Endpoint::new(address)).await.unwrap();
        self.running.push((Shutdown::new().0, lease));
        self.client(name)
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) env: Env,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Sends bytes and reads until the other side closes.
    pub(crate) async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        // The other side may reset what it refuses; what has arrived counts.
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
        Answer::parse(&String::from_utf8(bytes).unwrap())
    }

    pub(crate) async fn send(&self, method: &str, path: &str, rest: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: edge.example\r\n");
        self.raw(&format!("{head}connection: close\r\n{rest}\r\n")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }
}

/// An answer taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}
