//! Nobody holds a connection for ever.

use std::time::Duration;

use axum::{Router, routing::get};
use chassis_http::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::support::{Answer, config, read_all, serve, serve_with, until};

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_head_is_cut() {
    let server = serve("greeter", hello()).await;
    for beginning in ["", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: test\r\n"] {
        let begun = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        read_all(&mut stream).await;
        let waited = begun.elapsed();
        let limit = config().header_timeout;
        assert!(waited >= limit && waited < 2 * limit, "{beginning:?} was cut after {waited:?}");
    }
    assert_eq!(server.get("/", "").await.body, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_short_request_may_take_longer_than_the_head_may() {
    let slow = Router::new().route(
        "/",
        get(|| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            "late"
        }),
    );
    let server = serve("greeter", slow).await;
    let answer = Answer::parse(&server.raw("GET / HTTP/1.0\r\n\r\n").await);
    assert_eq!((answer.status, &*answer.body), (200, "late"));
}

#[tokio::test(start_paused = true)]
async fn the_next_head_is_not_due_while_an_answer_waits_for_its_reader() {
    const SIZE: usize = 32 << 20;
    let large = Router::new().route("/", get(|| async { "x".repeat(SIZE) }));
    let server = serve("greeter", large).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let ServerConfig { header_timeout, send_timeout, .. } = config();
    assert!(header_timeout * 2 < send_timeout, "who reads nothing is cut for another reason");
    // All of it is in hyper's hands, and the connection's buffers are full.
    tokio::time::sleep(header_timeout * 2).await;
    let mut answer = vec![0; SIZE];
    stream.read_exact(&mut answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_more_is_asked_ends_and_nothing_was_wrong_with_it() {
    let server = serve("greeter", hello()).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        tokio::time::sleep(config().header_timeout / 2).await;
    }
    let begun = Instant::now();
    let answers = read_all(&mut stream).await;
    assert_eq!(answers.matches("200 OK").count(), 2, "{answers}");
    let waited = begun.elapsed();
    assert!(waited < config().header_timeout, "it ended after {waited:?}");
    let labels = [("server", "http"), ("reason", "slow")];
    let slow = server.env.metrics().counter("server_connections_broken", "", &labels);
    assert_eq!(slow.get(), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let server =
        serve_with("greeter", &ServerConfig { max_connections: 1, ..config() }, hello()).await;
    let open = server.env.metrics().gauge(
        "server_connections",
        "Open connections.",
        &[("server", "http")],
    );
    let first = server.connect().await;
    until("the first connection is served", || open.get() == 1).await;
    let second = server.get("/", "");
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    assert_eq!(second.await.body, "hello");
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_asked_to_end() {
    let config = ServerConfig { max_connection_age: Duration::from_secs(2), ..config() };
    let slow = Router::new().route(
        "/",
        get(|| async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            "done"
        }),
    );
    let server = serve_with("greeter", &config, slow).await;
    // No `connection: close` from us: the server ends it, and only after the answer.
    let text = server.raw("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let answer = Answer::parse(&text);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
}
