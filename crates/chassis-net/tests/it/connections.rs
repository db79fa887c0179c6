//! Who is let in, and for how long.

use std::time::Duration;

use chassis_net::{Limits, tls::ServerTlsConfig};
use chassis_test::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{SOON, Server, ask, limits, rest};

#[tokio::test]
async fn an_address_has_so_many_connections_and_the_next_one_is_closed() {
    let limits = Limits { max_per_address: Some(2), ..limits() };
    let server = Server::start(limits, &ServerTlsConfig::default()).await;
    let first = server.connect().await;
    let _second = server.connect().await;
    let open = server.env.metrics().gauge("server_connections", "", &[("server", "http")]);
    eventually("both are in", SOON, async || (open.get() == 2).then_some(())).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert_eq!(server.refused("address"), 1);
    // Who leaves makes room.
    drop(first);
    eventually("one has left", SOON, async || (open.get() == 1).then_some(())).await;
    assert!(ask(&mut server.connect().await).await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_on_which_nothing_is_asked_is_asked_to_end() {
    let limits = Limits { idle: Some(Duration::from_secs(20)), ..limits() };
    let server = Server::start(limits, &ServerTlsConfig::default()).await;
    let begun = Instant::now();
    let mut stream = server.connect().await;
    // The preface and empty settings: all that a client has to say before it asks.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    const GOAWAY: u8 = 7;
    let mut answer = Vec::new();
    while !kinds(&answer).contains(&GOAWAY) {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "it was closed without a word: {:?}", kinds(&answer));
    }
    let waited = begun.elapsed();
    assert!((20..=40).contains(&waited.as_secs()), "it was asked after {waited:?}");
    drop(stream);
    server.stop().await;
}

/// The kinds of the frames (RFC 9113, 4.1).
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = bytes {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_counted_by_what_is_wrong_with_it() {
    let server = Server::start(limits(), &ServerTlsConfig::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    for (reason, bytes, status) in [
        ("malformed", "what is this\r\n\r\n", "HTTP/1.1 400 "),
        ("too_large", &*long, "HTTP/1.1 431 "),
        ("slow", "GET / HTTP/1.1\r\nho", ""),
        ("silent", "", ""),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(status), "{reason}: {answer}");
        let what = format!("it is counted as {reason}");
        eventually(&what, SOON, async || (server.broken(reason) == 1).then_some(())).await;
    }
    server.stop().await;
}
