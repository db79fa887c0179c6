//! A running server, and a client that speaks bytes.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use chassis_core::{Component, Env, Ready, Result, Shutdown, ShutdownTrigger};
use chassis_discovery::{Discovery, Endpoint, Lease, Registrar, Registry, Target};
use chassis_http::{Server, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

/// A component that serves until it is told to stop.
pub(crate) struct Running {
    pub(crate) env: Env,
    pub(crate) address: SocketAddr,
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) task: JoinHandle<Result<()>>,
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig { port: 0, ..ServerConfig::default() }
}

pub(crate) async fn serve(name: &'static str, router: Router) -> Running {
    serve_with(name, &config(), router).await
}

pub(crate) async fn serve_with(
    name: &'static str,
    config: &ServerConfig,
    router: Router,
) -> Running {
    start(Env::test(name), Server::new(config, router)).await
}

pub(crate) async fn start(env: Env, component: impl Component) -> Running {
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let task = tokio::spawn(Box::new(component).run(env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    let address = env.listeners().last().unwrap().address;
    Running { env, address, trigger, task }
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a whole request on a fresh connection and reads until the server closes it.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // The server may refuse and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        read_all(&mut stream).await
    }

    /// Sends a request of HTTP/2 on a fresh connection; gives status, media type and body.
    pub(crate) async fn http2(&self, request: http::Request<axum::body::Body>) -> Answer {
        let io = hyper_util::rt::TokioIo::new(self.connect().await);
        let builder =
            hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let head = answer
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        Answer { status, head, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// A GET with extra header lines.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
        Answer::parse(&self.raw(&request).await)
    }

    /// Stops it and waits until it has.
    pub(crate) async fn stop(self, drain: Duration) -> Result<()> {
        self.trigger.shutdown(drain);
        self.task.await.unwrap()
    }
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        bytes.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(bytes).unwrap()
}

/// An answer taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// The body as a problem document, whose media type is checked.
    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Waits until a condition holds, at most five seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A discovery of its own in which `service` has these endpoints.
pub(crate) async fn discovery(service: &str, addresses: &[SocketAddr]) -> (Discovery, Vec<Lease>) {
    let registry = Registry::new();
    let mut leases = Vec::new();
    for address in addresses {
        let target = Target::new(service, "http");
        leases.push(registry.register(target, Endpoint::new(*address)).await.unwrap());
    }
    (Discovery::in_process(registry), leases)
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
