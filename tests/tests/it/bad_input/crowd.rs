//! Very many connections, from one address or beyond what the process can have.

use std::{net::SocketAddr, time::Duration};

use chassis::{App, Env, http::ServerConfig};
use chassis_test::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::router;
use crate::{
    hello::{Hello, SOON},
    service::{Service, http},
    wire,
};

/// As many connections as the process may have at both of their ends, up to 5 000.
fn crowd() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = limit.maximum.map_or(usize::MAX, |files| files as usize);
    let crowd = files.saturating_sub(1_000) / 2;
    assert!(crowd >= 500, "too few open files are allowed: ulimit -Hn 3000");
    crowd.min(5_000)
}

/// A connection from this address of the loopback network.
async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    tokio::time::timeout(SOON, socket.connect(to)).await.expect("it connects").unwrap()
}

async fn connect_many(count: usize, to: SocketAddr) -> Vec<TcpStream> {
    let mut connecting = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..count {
        connecting.spawn(connect_from([127, 0, 0, 1], to));
        // Below what the queue of the system holds.
        if connecting.len() >= 64 {
            connections.push(connecting.join_next().await.unwrap().unwrap());
        }
    }
    connections.extend(connecting.join_all().await);
    connections
}

/// That somebody of another address is served.
async fn another_is_served(address: SocketAddr) {
    let mut stream = connect_from([127, 0, 0, 2], address).await;
    let get = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(get).await.unwrap();
    let answer = tokio::time::timeout(SOON, wire::read(&mut stream)).await;
    assert_eq!(answer.expect("another is served").unwrap().body, "hello");
}

async fn serve(config: &ServerConfig) -> Service {
    let server = chassis::http::Server::new(config, router());
    Service::start(App::new(Env::test("greeter")).with(server)).await
}

#[tokio::test]
async fn thousands_that_say_nothing_hold_up_nobody_and_are_gone_in_time() {
    let config = ServerConfig { header_timeout: Duration::from_secs(4), ..http() };
    let service = serve(&config).await;
    let address = service.address("http");
    let crowd = crowd();
    let silent = connect_many(crowd, address).await;
    let open = service.env.metrics().gauge("server_connections", "", &[("server", "http")]);
    for _ in 0..20 {
        another_is_served(address).await;
    }
    eventually("all are gone", SOON, async || (open.get() == 0).then_some(())).await;
    another_is_served(address).await;
    drop(silent);
    service.stop().await;
}

#[tokio::test]
async fn an_address_has_its_share_and_the_others_are_served() {
    let config = ServerConfig { max_connections: 200, max_connections_per_address: 100, ..http() };
    let service = serve(&config).await;
    let address = service.address("http");
    let crowd = crowd();
    let mut greedy = connect_many(crowd, address).await;
    let labels = [("server", "http"), ("reason", "address")];
    let refused = service.env.metrics().counter("server_connections_refused", "", &labels);
    eventually("those beyond the share are closed", SOON, async || {
        another_is_served(address).await;
        (refused.get() == (crowd - 100) as u64).then_some(())
    })
    .await;
    // Those within it are served too.
    let mut served = 0;
    for stream in &mut greedy {
        let get = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        if stream.write_all(get).await.is_ok() {
            served += usize::from(wire::read(stream).await.is_some());
        }
    }
    assert_eq!(served, 100);
    service.stop().await;
}

#[tokio::test]
async fn a_process_without_a_file_descriptor_left_goes_on_when_it_has_one() {
    // Room for its own and a few dozen connections.
    let mut hello = Hello::start_with_files(64).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(hello.http).await.unwrap());
    }
    // One who comes now is not served, and not lost either.
    let get = "GET /orders/7 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let mut late = wire::open(hello.http, get).await;
    eventually("it has none left", SOON, async || {
        hello.stdout().contains("cannot accept connections").then_some(())
    })
    .await;
    let mut first = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), late.read(&mut first)).await;
    assert!(early.is_err(), "there was room for all");
    drop(crowd);
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, late.read_to_end(&mut answer)).await;
    read.expect("it is served then").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    hello.until_admin_says("/readyz", 200).await;
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
}
