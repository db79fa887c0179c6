//! Handlers that do what a handler must not do.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use chassis::{App, Env};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::is_left_alone;
use crate::{
    hello::{Hello, SOON},
    service::{Service, http},
    wire,
};

async fn serve(router: Router) -> Service {
    let server = chassis::http::Server::new(&http(), router);
    Service::start(App::new(Env::test("greeter")).with(server)).await
}

/// Among the threads of the runtime it may hold just the one that looks at the sockets for all.
#[tokio::test]
async fn one_that_blocks_its_thread_holds_up_no_other() {
    let mut hello = Hello::start(&[("TOKIO_WORKER_THREADS", "2")]).await;
    for _ in 0..2 {
        let request = "GET /blocks HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let mut blocked = wire::open(hello.http, request).await;
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(wire::get(hello.http, "/orders/7", &[]).await.status, 200);
            assert_eq!(wire::get(hello.admin, "/livez", &[]).await.status, 200);
        }
        assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
        assert_eq!(wire::read(&mut blocked).await.unwrap().body, "at last");
    }
    assert_eq!(hello.stop().await.code(), Some(0));
}

/// Whether it reads its body or not, the next request on the connection is its own.
#[tokio::test]
async fn one_that_drops_its_body_does_not_mix_up_requests() {
    let router = Router::new()
        .route("/drops", post(|_body: Body| async { "dropped" }))
        .route(
            "/begins",
            post(|body: Body| async move {
                let first = body.into_data_stream().next().await;
                format!("first {}", !first.unwrap().unwrap().is_empty())
            }),
        )
        .route("/", get(|| async { "hello" }));
    let service = serve(router).await;
    let address = service.address("http");
    for (path, said) in [("/drops", "dropped"), ("/begins", "first true")] {
        for size in [10, 100_000, 1_500_000] {
            let body = "GET / HTTP/1.1\r\nhost: smuggled\r\n\r\n".repeat(size / 34 + 1);
            let length = body.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}\
                 GET /none HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            );
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (mut reading, mut writing) = stream.into_split();
            let writer = tokio::spawn(async move {
                let _ = writing.write_all(request.as_bytes()).await;
                writing
            });
            let mut answer = Vec::new();
            let read = tokio::time::timeout(SOON, reading.read_to_end(&mut answer)).await;
            // A reset is an end too, if the rest was not wanted.
            let _ = read.expect("it is answered");
            drop(writer);
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains(said), "{path} {size}: {answer}");
            assert!(!answer.contains("hello"), "{path} {size}: {answer}");
            let next = answer.matches("HTTP/1.1 ").count();
            assert!(next == 1 || answer.contains("HTTP/1.1 404"), "{path} {size}: {answer}");
        }
    }
    is_left_alone(&service.env, "http").await;
    service.stop().await;
}

/// An answer that ends early must not look whole.
#[tokio::test]
async fn an_answer_that_fails_or_panics_on_its_way_is_cut_and_the_server_lives() {
    let pieces = |last: fn() -> Result<Bytes, std::io::Error>| {
        move || async move {
            let first = futures_util::stream::iter([Ok(Bytes::from("first "))]);
            Body::from_stream(first.chain(futures_util::stream::once(async move { last() })))
        }
    };
    let router = Router::new()
        .route("/fails", get(pieces(|| Err(std::io::Error::other("the disk is gone")))))
        .route("/panics", get(pieces(|| panic!("in the middle"))))
        .route("/", get(|| async { "hello" }));
    let service = serve(router).await;
    let address = service.address("http");
    for path in ["/fails", "/panics"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        let mut stream = wire::open(address, &request).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("it is cut");
        let answer = String::from_utf8(answer).unwrap();
        // The last chunk of a whole answer is an empty one.
        assert!(!answer.contains("\r\n0\r\n"), "{path}: {answer}");
        assert_eq!(wire::get(address, "/", &[]).await.body, "hello");
    }
    is_left_alone(&service.env, "http").await;
    service.stop().await;
}
