//! Each fault is seen by a client of an echo server behind the proxy.

use std::{net::SocketAddr, time::Duration};

use chassis_test::{Direction, FaultProxy, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BOUND: Duration = Duration::from_secs(10);

/// Sends back what it gets, on any number of connections.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn said_back(stream: &mut TcpStream, word: &[u8; 4]) -> std::io::Result<()> {
    stream.write_all(word).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, word);
    Ok(())
}

#[tokio::test]
async fn a_cut_breaks_old_and_new_connections_until_healed() {
    let proxy = FaultProxy::start(echo().await.to_string()).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut stream, b"one.").await.unwrap();
    assert_eq!(proxy.connections(), 1);

    proxy.cut();
    assert!(said_back(&mut stream, b"two.").await.is_err());
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(said_back(&mut refused, b"two.").await.is_err());
    eventually("the count is zero", BOUND, async || (proxy.connections() == 0).then_some(())).await;

    proxy.heal();
    let mut healed = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut healed, b"thr.").await.unwrap();
}

#[tokio::test]
async fn killed_connections_can_be_made_anew() {
    let proxy = FaultProxy::start(echo().await.to_string()).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut stream, b"one.").await.unwrap();
    proxy.kill_connections();
    assert!(said_back(&mut stream, b"two.").await.is_err());
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut again, b"thr.").await.unwrap();
}

#[tokio::test]
async fn a_silent_direction_holds_the_answer_until_healed() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let proxy = FaultProxy::start(echo().await.to_string()).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        said_back(&mut stream, b"one.").await.unwrap();
        proxy.silence(direction);
        let held = tokio::time::timeout(Duration::from_millis(50), said_back(&mut stream, b"two."));
        assert!(held.await.is_err(), "{direction:?}");
        proxy.heal();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"two.");
    }
}

#[tokio::test]
async fn a_delay_is_at_least_as_long_as_asked_for() {
    let proxy = FaultProxy::start(echo().await.to_string()).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let delay = Duration::from_millis(20);
    proxy.delay(delay);
    let start = tokio::time::Instant::now();
    said_back(&mut stream, b"one.").await.unwrap();
    assert!(start.elapsed() >= 2 * delay);
}
