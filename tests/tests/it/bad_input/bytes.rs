//! Bytes that are no HTTP, connections that break in the middle, and peers that are gone.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use super::{
    CALL,
    frames::{
        DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call, connect, frame, get, head,
        read_all,
    },
    is_left_alone, others_are_served, serve,
};
use crate::{hello::SOON, wire};

/// Sends these bytes; gives what comes until the server ends the connection.
async fn say(address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before all of it is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer));
    let _ = read.await.expect("the server ends the connection");
    answer
}

#[tokio::test]
async fn garbage_instead_of_a_request_is_refused_and_nothing_is_left_of_it() {
    let service = serve().await;
    let half = PREFACE.split_at(12).0;
    let garbage: Vec<Vec<u8>> = vec![
        vec![0; 4096],
        (0..=255).cycle().take(10_000).collect(),
        // The beginning of TLS.
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"G\0T / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"\xff\xfe / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        // Before, in and after the preface.
        [b"\0\0\0", PREFACE].concat(),
        [half, b"garbage", PREFACE].concat(),
        [half, &[0; 100]].concat(),
        [PREFACE, &[0xff; 1000]].concat(),
        [PREFACE, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat(),
        // A frame larger than is allowed, of no kind, on no stream.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(DATA, 0, 0, b"x")].concat(),
        // Settings that are none.
        [PREFACE, &frame(SETTINGS, 0, 0, &[1, 2, 3])].concat(),
        // A head that is no HPACK.
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &[0xff; 64])].concat(),
    ];
    for bytes in &garbage {
        for server in ["http", "grpc"] {
            let answer = say(service.address(server), bytes).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(!answer.contains(" 200 "), "{server} {bytes:?}: {answer}");
        }
    }
    others_are_served(service.address("http")).await;
    for server in ["http", "grpc"] {
        is_left_alone(&service.env, server).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn header_values_that_would_end_a_line_are_refused_or_harmless() {
    let service = serve().await;
    let address = service.address("http");
    let request = |value: &[u8]| {
        let head = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-request-id: ";
        [head, value, b"\r\n\r\n"].concat()
    };
    for value in [&b"a\0b"[..], b"a\rb", b"a\r\rx-evil: 1", b"a\x01b", b"a\x7fb", b"\r"] {
        let answer = String::from_utf8(say(address, &request(value)).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{value:?}: {answer}");
        assert!(!answer.contains("x-evil"), "{value:?}: {answer}");
    }
    // Bytes that are no UTF-8 are allowed in a value, and no id; nor is one that is a line of its
    // own after a bare line feed.
    for value in [&b"\xff\xfe"[..], "größe".as_bytes(), b"a\nx-evil: 1", b"a b", &[b'x'; 200]] {
        let answer = String::from_utf8(say(address, &request(value)).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{value:?}: {answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        assert!(id == "a" || (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{id}");
        assert!(!answer.contains("x-evil"), "{value:?}: {answer}");
    }
    // HTTP/2 could carry them in its length; each is a malformed request (RFC 9113, 8.2.1).
    for value in [&b"a\r\nx-evil: 1"[..], b"a\nb", b"a\0b", b"a\rb"] {
        for server in ["http", "grpc"] {
            let mut stream = connect(service.address(server)).await;
            let block = head(&[
                (":method", b"POST"),
                (":scheme", b"http"),
                (":path", b"/"),
                (":authority", b"test"),
                ("content-type", b"application/grpc"),
                ("x-request-id", value),
            ]);
            let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
            stream.write_all(&request).await.unwrap();
            stream.shutdown().await.unwrap();
            let frames = read_all(&mut stream).await;
            let answered = frames.iter().any(|(kind, ..)| *kind == HEADERS);
            assert!(!answered, "{server} {value:?}: {frames:?}");
        }
    }
    others_are_served(address).await;
    service.stop().await;
}

/// A reset and not an end: the kernel says so, and whatever was under way is over.
#[tokio::test]
async fn a_reset_in_the_middle_leaves_nothing() {
    let service = serve().await;
    let (http, grpc) = (service.address("http"), service.address("grpc"));
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let middles: [(&str, Vec<u8>); 8] = [
        ("http", b"GET / HT".to_vec()),
        ("http", b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf".to_vec()),
        ("http", b"GET /silent HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("http", b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("http", PREFACE[..10].to_vec()),
        ("http", [hello.clone(), frame(HEADERS, 5, 1, &get("/endless"))].concat()),
        ("grpc", [hello.clone(), frame(HEADERS, 4, 1, &call(CALL))].concat()),
        ("grpc", [hello, frame(HEADERS, 4, 1, &call(CALL)), frame(DATA, 1, 1, &[0; 5])].concat()),
    ];
    for (server, bytes) in middles {
        for _ in 0..20 {
            let address = if server == "http" { http } else { grpc };
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_zero_linger().unwrap();
            stream.write_all(&bytes).await.unwrap();
            // Half of them once the server has begun to answer, if it does.
            let mut first = [0];
            let _ = tokio::time::timeout(Duration::from_millis(2), stream.read(&mut first)).await;
            drop(stream);
        }
        is_left_alone(&service.env, server).await;
        others_are_served(http).await;
    }
    service.stop().await;
}

/// No FIN and no RST: the machine is gone, or the cable. Only time can tell.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let service = serve().await;
    let open =
        |server| service.env.metrics().gauge("server_connections", "", &[("server", server)]);
    // It never answers a ping; 30 s until one is sent, 20 s for its answer.
    for (server, head) in [("http", get("/silent")), ("grpc", call(CALL))] {
        let mut gone = connect(service.address(server)).await;
        gone.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
        let begun = Instant::now();
        let noticed = async {
            let mut bytes = Vec::new();
            let _ = gone.read_to_end(&mut bytes).await;
        };
        tokio::time::timeout(Duration::from_secs(70), noticed).await.expect("it is noticed");
        assert!(begun.elapsed() >= Duration::from_secs(29), "{server}: {:?}", begun.elapsed());
        assert_eq!(open(server).get(), 0, "{server}");
    }
    // HTTP/1 has no pings: its request ends by its own time, and the connection is idle then.
    let gone = wire::open(service.address("http"), "GET /silent HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let begun = Instant::now();
    let noticed = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if begun.elapsed() > Duration::from_secs(5) && open("http").get() == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noticed).await.expect("it is noticed");
    drop(gone);
    service.stop().await;
}
