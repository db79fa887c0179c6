//! A server of hello's on a socket, and clients that behave and that do not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod connections;
mod sockets;
mod tls;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use chassis_core::{Env, Result, Shutdown, ShutdownTrigger, config::SocketConfig};
use chassis_net::{
    Http, KeepAlive, Limits, Listening, Peer,
    tls::{ServerTlsConfig, Tls},
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(20);

/// A request after which the server ends the connection.
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

struct Server {
    env: Env,
    address: SocketAddr,
    trigger: ShutdownTrigger,
    running: JoinHandle<()>,
}

fn limits() -> Limits {
    Limits {
        max_connections: 100,
        max_per_address: None,
        first_bytes: Duration::from_secs(10),
        head: Duration::from_secs(10),
        first_request: None,
        send: None,
        idle: None,
        max_age: None,
    }
}

impl Server {
    async fn start(limits: Limits, tls: &ServerTlsConfig) -> Server {
        Server::start_on(&SocketConfig::default(), limits, tls).await.unwrap()
    }

    async fn start_on(
        socket: &SocketConfig,
        limits: Limits,
        tls: &ServerTlsConfig,
    ) -> Result<Server> {
        let anywhere = ([127, 0, 0, 1], 0).into();
        Server::start_at(anywhere, socket, limits, tls).await
    }

    async fn start_at(
        address: SocketAddr,
        socket: &SocketConfig,
        limits: Limits,
        tls: &ServerTlsConfig,
    ) -> Result<Server> {
        let env = Env::test("greeter");
        let tls = Tls::load(tls, "http.tls", "http", &["h2", "http/1.1"], &env)?;
        let listening = Listening::bind("http", address, socket, limits, tls, &env).await?;
        listening.announce("http", &env);
        let address = listening.address().unwrap_or(address);
        let http = Http {
            only_http2: false,
            max_header_bytes: 8192,
            max_headers: 100,
            max_concurrent_streams: 10,
            keep_alive: KeepAlive::default(),
        };
        let (trigger, shutdown) = Shutdown::new();
        let running = tokio::spawn(async move {
            let service = |_: &Peer| service_fn(hello);
            listening.serve(&http, service, shutdown).await;
        });
        Ok(Server { env, address, trigger, running })
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn refused(&self, reason: &str) -> u64 {
        let labels = [("server", "http"), ("reason", reason)];
        self.env.metrics().counter("server_connections_refused", "", &labels).get()
    }

    fn broken(&self, reason: &str) -> u64 {
        let labels = [("server", "http"), ("reason", reason)];
        self.env.metrics().counter("server_connections_broken", "", &labels).get()
    }

    async fn stop(self) {
        self.trigger.shutdown(SOON);
        tokio::time::timeout(SOON, self.running).await.expect("it ends").unwrap();
    }
}

async fn hello(_: Request<Incoming>) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

/// Asks, and gives all that comes until the end; empty where the server hangs up.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let _ = stream.write_all(ASK).await;
    rest(stream).await
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer));
    // A reset is an end too.
    let _ = read.await.expect("the server answers or hangs up");
    String::from_utf8(answer).unwrap()
}
