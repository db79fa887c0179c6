//! Servers that turn calls away: by themselves, stream by stream, or by leaving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chassis_core::Metrics;
use chassis_grpc::{Channel, from_status};
use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;

use crate::greeter::{Greeter, greet, hello};
use crate::world::{Endpoints, Running, eventually};

fn echo() -> Greeter {
    Greeter::new(async |text| Ok(text))
}

/// A channel that may repeat nothing that a server has looked at.
fn channel(endpoints: &Endpoints, metrics: &Metrics) -> Channel {
    Channel::builder("greeter", &endpoints.discovery()).metrics(metrics).build().unwrap()
}

/// An HTTP/2 server that resets the first `refused` streams with this reason, and greets.
async fn h2_server(reason: Reason, refused: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&streams);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if seen.fetch_add(1, Ordering::SeqCst) < refused {
                        respond.send_reset(reason);
                        continue;
                    }
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    // Field 1 of a message of four bytes: the text "hi".
                    body.send_data(Bytes::from_static(b"\0\0\0\0\x04\x0a\x02hi"), false).unwrap();
                    let ok = (http::HeaderName::from_static("grpc-status"), 0.into());
                    body.send_trailers(http::HeaderMap::from_iter([ok])).unwrap();
                }
            });
        }
    });
    (address, streams)
}

#[tokio::test]
async fn a_stream_that_a_server_refuses_is_sent_again_for_free() {
    let (address, streams) = h2_server(Reason::REFUSED_STREAM, 1).await;
    let endpoints = Endpoints::of([address]).await;
    let metrics = Metrics::default();
    assert_eq!(greet(channel(&endpoints, &metrics), hello("you")).await.unwrap(), "hi");
    assert_eq!(streams.load(Ordering::SeqCst), 2);
    // It counts as no attempt, and as no fault of the endpoint.
    let first = r#"client_attempts_total{attempt="first",protocol="grpc",service="greeter"} 2"#;
    assert!(metrics.encode().contains(first), "{}", metrics.encode());
}

#[tokio::test]
async fn a_stream_that_a_server_cancels_may_have_happened() {
    let (address, streams) = h2_server(Reason::CANCEL, 1).await;
    let endpoints = Endpoints::of([address]).await;
    greet(channel(&endpoints, &Metrics::default()), hello("you")).await.unwrap_err();
    assert_eq!(streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_not_asked_for_ever() {
    let (address, streams) = h2_server(Reason::REFUSED_STREAM, usize::MAX).await;
    let endpoints = Endpoints::of([address]).await;
    let status = greet(channel(&endpoints, &Metrics::default()), hello("you")).await.unwrap_err();
    assert!(from_status(status).was_not_sent());
    assert_eq!(streams.load(Ordering::SeqCst), 4, "three attempts, and one for free");
}

/// Serves the first connection with a GOAWAY as soon as it asks for anything, which names no
/// stream as looked at. Those after it are passed on.
async fn leaves_at_the_first_call(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        first.read_exact(&mut preface).await.unwrap();
        // SETTINGS: no bytes, type 4, no flags, stream 0.
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            first.read_exact(&mut payload).await.unwrap();
            // HEADERS.
            if head[3] == 1 {
                break;
            }
        }
        // GOAWAY: eight bytes, type 7, stream 0; last stream 0, NO_ERROR.
        first.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_call_that_a_goaway_does_not_name_goes_over_the_next_connection() {
    let server = Running::start(echo()).await;
    let endpoints = Endpoints::of([leaves_at_the_first_call(server.address).await]).await;
    let metrics = Metrics::default();
    let answer = greet(channel(&endpoints, &metrics), hello("you")).await;
    assert_eq!(answer.unwrap(), "you");
    let opened =
        r#"client_breaker_transitions_total{protocol="grpc",service="greeter",to="open"} 0"#;
    assert!(metrics.encode().contains(opened), "{}", metrics.encode());
}

/// The registry does not know it yet, as a DNS server does not: calls find out by themselves.
#[tokio::test]
async fn a_server_that_drains_under_load_loses_no_call() {
    let slow = || {
        Greeter::new(async |text| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Status>(text)
        })
    };
    let (leaving, staying) = (Running::start(slow()).await, Running::start(slow()).await);
    let endpoints = Endpoints::of([leaving.address, staying.address]).await;
    let channel = channel(&endpoints, &Metrics::default());
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..8).map(|_| {
        let (channel, done, stop) = (channel.clone(), Arc::clone(&done), Arc::clone(&stop));
        tokio::spawn(async move {
            while stop.load(Ordering::SeqCst) == 0 {
                greet(channel.clone(), hello("you")).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("calls are made", || done.load(Ordering::SeqCst) > 100).await;
    leaving.begin_shutdown(Duration::from_secs(20));
    leaving.ended().await;
    let before = done.load(Ordering::SeqCst);
    eventually("calls go on", || done.load(Ordering::SeqCst) > before + 100).await;
    stop.store(1, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no call fails");
    }
}
