//! Each limit of a request, just below and just above, and who takes no answer.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use chassis_http::{Json, ServerConfig};
use http::Request;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::support::{Answer, Running, config, read_all, serve_with, until};

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/{*path}", get(|| async { "there" }))
        .route("/bytes", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/json", post(|Json(_): Json<Value>| async { "read" }))
        .route(
            "/blind",
            // It makes its own of a body that breaks.
            post(|body: Body| async move {
                match axum::body::to_bytes(body, usize::MAX).await {
                    Ok(_) => http::StatusCode::OK,
                    Err(_) => http::StatusCode::IM_A_TEAPOT,
                }
            }),
        )
        .route(
            "/endless",
            get(|| async {
                let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                let chunks = futures_util::stream::repeat(chunk).map(Ok::<_, std::io::Error>);
                Body::from_stream(chunks)
            }),
        )
}

use futures_util::StreamExt as _;

async fn serve(config: ServerConfig) -> Running {
    serve_with("greeter", &config, router()).await
}

fn reason(answer: &Answer) -> String {
    answer.problem()["reason"].as_str().unwrap().to_owned()
}

/// A request of HTTP/1.1 to `/` with so many headers in all.
fn with_headers(count: usize) -> String {
    // Two are there already.
    let more: String = (2..count).map(|number| format!("x-{number}: 1\r\n")).collect();
    format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn the_number_of_headers() {
    let server = serve(ServerConfig { max_headers: 10, ..config() }).await;
    assert_eq!(Answer::parse(&server.raw(&with_headers(10)).await).status, 200);
    let answer = Answer::parse(&server.raw(&with_headers(11)).await);
    assert_eq!((answer.status, &*reason(&answer)), (431, "TOO_MANY_HEADERS"));

    let http2 = async |count| {
        let mut request = Request::get("http://test/");
        for number in 0..count {
            request = request.header(format!("x-{number}"), "1");
        }
        server.http2(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(http2(10).await.status, 200);
    let answer = http2(11).await;
    assert_eq!((answer.status, &*reason(&answer)), (431, "TOO_MANY_HEADERS"));
}

/// hyper has a limit of its own below ours, and an answer without a body.
#[tokio::test]
async fn far_too_many_headers_are_refused_by_hyper() {
    let server = serve(config()).await;
    assert_eq!(Answer::parse(&server.raw(&with_headers(100)).await).status, 200);
    let answer = Answer::parse(&server.raw(&with_headers(101)).await);
    assert_eq!((answer.status, &*answer.body), (431, ""));

    let server = serve(ServerConfig { max_headers: 300, ..config() }).await;
    assert_eq!(Answer::parse(&server.raw(&with_headers(300)).await).status, 200);
    assert_eq!(Answer::parse(&server.raw(&with_headers(301)).await).status, 431);
}

/// A request of HTTP/1.1 whose head has so many bytes.
fn head_of(bytes: usize) -> String {
    let rest = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-fill: \r\n\r\n";
    let fill = "x".repeat(bytes - rest.len());
    rest.replace("x-fill: ", &format!("x-fill: {fill}"))
}

#[tokio::test]
async fn the_size_of_a_head() {
    let server = serve(ServerConfig { max_header_bytes: 8192, ..config() }).await;
    for bytes in [8000, 8192] {
        assert_eq!(Answer::parse(&server.raw(&head_of(bytes)).await).status, 200, "{bytes}");
    }
    for bytes in [8193, 20_000] {
        let answer = Answer::parse(&server.raw(&head_of(bytes)).await);
        assert_eq!((answer.status, &*answer.body), (431, ""), "{bytes}");
    }
    // HTTP/2 counts 32 bytes more for each header (RFC 9113, 6.5.2).
    let http2 = async |fill: usize| {
        let request = Request::get("http://test/").header("x-fill", "x".repeat(fill));
        server.http2(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(http2(7000).await, 200);
    assert_eq!(http2(8192).await, 431);
}

#[tokio::test]
async fn the_length_of_a_target() {
    for most in [64, 8192] {
        let server = serve(ServerConfig { max_uri_bytes: most, ..config() }).await;
        let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert_eq!(server.get(&path(most), "").await.status, 200);
        let answer = server.get(&path(most + 1), "").await;
        assert_eq!((answer.status, &*reason(&answer)), (414, "URI_TOO_LONG"));
        let http2 = async |bytes: usize| {
            // The host counts: four bytes of it are in the target.
            let uri = format!("http://test{}", path(bytes - 4));
            server.http2(Request::get(uri).body(Body::empty()).unwrap()).await
        };
        assert_eq!(http2(most).await.status, 200);
        let answer = http2(most + 1).await;
        assert_eq!((answer.status, &*reason(&answer)), (414, "URI_TOO_LONG"));
    }
    // Beyond what hyper itself takes there is no body.
    let server = serve(ServerConfig { max_header_bytes: 1 << 20, ..config() }).await;
    let answer = server.get(&format!("/{}", "x".repeat(70_000)), "").await;
    assert_eq!((answer.status, &*answer.body), (414, ""));
}

#[tokio::test]
async fn how_deep_json_may_be() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for most in [1, 5, 127] {
        let server = serve(ServerConfig { max_json_depth: most, ..config() }).await;
        let post = async |body: String| {
            let head = "POST /json HTTP/1.1\r\nhost: test\r\nconnection: close\r\n";
            let kind = "content-type: application/json\r\n";
            let length = body.len();
            let request = format!("{head}{kind}content-length: {length}\r\n\r\n{body}");
            Answer::parse(&server.raw(&request).await)
        };
        assert_eq!(post(nested(most)).await.status, 200, "{most}");
        for depth in [most + 1, 100_000] {
            let answer = post(nested(depth)).await;
            assert_eq!((answer.status, &*reason(&answer)), (400, "JSON_TOO_DEEP"), "{most}");
        }
    }
}

/// Sends the head, and of the body one half at once and the other after a while.
async fn in_two_halves(server: &Running, path: &str, framing: &str, pause: Duration) -> Answer {
    let (length, first, second) = match framing {
        "chunked" => ("transfer-encoding: chunked", "5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"),
        _ => ("content-length: 10", "hello", "world"),
    };
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{length}\r\n\r\n");
    let mut stream = server.connect().await;
    stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let late = tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        let _ = writing.write_all(second.as_bytes()).await;
        writing
    });
    let mut bytes = Vec::new();
    let _ = reading.read_to_end(&mut bytes).await;
    drop(late);
    Answer::parse(&String::from_utf8(bytes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_body() {
    let server = serve(ServerConfig { body_timeout: Duration::from_secs(5), ..config() }).await;
    for framing in ["length", "chunked"] {
        let early = Duration::from_millis(4_900);
        let answer = in_two_halves(&server, "/bytes", framing, early).await;
        assert_eq!((answer.status, &*answer.body), (200, "10"), "{framing}");
        for path in ["/bytes", "/blind"] {
            let begun = Instant::now();
            let answer = in_two_halves(&server, path, framing, Duration::from_secs(6)).await;
            assert_eq!((answer.status, &*reason(&answer)), (408, "BODY_TOO_SLOW"), "{framing}");
            assert_eq!(begun.elapsed().as_secs(), 5, "{framing}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_cut_and_who_takes_little_is_not() {
    let server = serve(config()).await;
    let limit = config().send_timeout;
    let open = server.env.metrics().gauge("server_connections", "", &[("server", "http")]);
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    // A little now and then: more than once it would have been too long for nothing.
    let mut some = vec![0; 4 << 20];
    for _ in 0..5 {
        tokio::time::sleep(limit * 2 / 3).await;
        // A paused clock would run on to the limit as soon as the socket keeps both waiting.
        tokio::time::resume();
        stream.read_exact(&mut some).await.unwrap();
        tokio::time::pause();
    }
    assert_eq!(open.get(), 1);
    let begun = Instant::now();
    let gone = async {
        while open.get() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(limit * 3, gone).await.expect("it is cut");
    assert!(begun.elapsed() + Duration::from_secs(1) >= limit, "{:?}", begun.elapsed());
    drop(stream);
    until("its handler is gone", || server.env.in_flight().counts()["http"] == 0).await;
    let mut other = server.connect().await;
    other.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut other).await.ends_with("here"));
}

#[test]
fn numbers_out_of_range_are_named() {
    let bad = [
        ("max_headers", ServerConfig { max_headers: 0, ..config() }),
        ("max_headers", ServerConfig { max_headers: 4097, ..config() }),
        ("max_uri_bytes", ServerConfig { max_uri_bytes: 63, ..config() }),
        ("max_uri_bytes", ServerConfig { max_uri_bytes: 65_535, ..config() }),
        ("max_json_depth", ServerConfig { max_json_depth: 0, ..config() }),
        ("max_json_depth", ServerConfig { max_json_depth: 128, ..config() }),
        ("body_timeout", ServerConfig { body_timeout: Duration::ZERO, ..config() }),
        ("send_timeout", ServerConfig { send_timeout: Duration::from_millis(999), ..config() }),
        ("max_header_bytes", ServerConfig { max_header_bytes: 8191, ..config() }),
    ];
    for (name, config) in bad {
        let error = config.validate().unwrap_err();
        assert!(error.message().contains(name), "{error}");
    }
}
