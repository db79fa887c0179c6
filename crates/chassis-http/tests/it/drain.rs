//! A drain ends what was begun, begins nothing, and has a deadline.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

use crate::support::{Answer, Running, read_all, serve, until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// Counts the handlers that are at work, also when they are dropped.
#[derive(Clone, Default)]
struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn enter(&self) -> Left {
        self.0.fetch_add(1, Ordering::SeqCst);
        Left(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Left(AtWork);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server whose only handler waits for `go`.
async fn waiting() -> (Running, AtWork, Arc<Notify>) {
    let (at_work, go) = (AtWork::default(), Arc::new(Notify::new()));
    let (work, wait) = (at_work.clone(), go.clone());
    let handler = move || {
        let (work, wait) = (work.clone(), wait.clone());
        async move {
            let _left = work.enter();
            wait.notified().await;
            "finished"
        }
    };
    (serve("greeter", Router::new().route("/", get(handler))).await, at_work, go)
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_begins() {
    let (server, at_work, go) = waiting().await;
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    until("the handler has begun", || at_work.count() == 1).await;
    assert_eq!(server.env.in_flight().counts()["http"], 1);

    server.trigger.shutdown(Duration::from_secs(30));
    refused(server.address).await;
    go.notify_one();
    let answer = Answer::parse(&read_all(&mut stream).await);
    assert_eq!((answer.status, &*answer.body), (200, "finished"));
    assert_eq!(answer.header("connection"), Some("close"));
    server.task.await.unwrap().unwrap();
    assert_eq!(server.env.in_flight().counts()["http"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_cut_at_the_deadline() {
    let (server, at_work, _go) = waiting().await;
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    until("the handler has begun", || at_work.count() == 1).await;

    let begun = Instant::now();
    server.stop(Duration::from_secs(3)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(read_all(&mut stream).await, "");
    assert_eq!(at_work.count(), 0);
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_drain() {
    let (server, _, go) = waiting().await;
    go.notify_one();
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    // The answer has come, the connection is kept alive.
    stream.readable().await.unwrap();
    let stop = server.stop(Duration::from_secs(30));
    tokio::time::timeout(Duration::from_secs(5), stop).await.unwrap().unwrap();
}

/// A client of HTTP/1 that sends again just when the connection is closed cannot know whether it
/// was heard. So it is sent away with an answer, while there is time.
#[tokio::test]
async fn during_the_drain_delay_an_answer_ends_its_connection_and_others_are_accepted() {
    let (server, _, go) = waiting().await;
    let mut kept = server.connect().await;
    kept.write_all(GET).await.unwrap();
    go.notify_one();
    let answer = first_answer(&mut kept).await;
    assert!(!answer.contains("connection: close"), "{answer}");

    server.env.health().set_draining();
    // The accept loop hears of it before it takes the next connection.
    for mut stream in [kept, server.connect().await] {
        stream.write_all(GET).await.unwrap();
        go.notify_one();
        let answer = Answer::parse(&read_all(&mut stream).await);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    server.stop(Duration::from_secs(30)).await.unwrap();
}

/// Its client sends meanwhile, and would be left not knowing whether it was heard.
#[tokio::test]
async fn who_connected_just_before_the_drain_is_still_answered() {
    let (server, _, go) = waiting().await;
    let accepted = std_stream(server.connect().await);
    let open = server.env.metrics().gauge(
        "server_connections",
        "Open connections.",
        &[("server", "http")],
    );
    until("it was accepted", || open.get() == 1).await;
    // From here on nothing gives the server a turn: the second is only known to the system.
    let queued = std::net::TcpStream::connect(server.address).unwrap();
    server.trigger.shutdown(Duration::from_secs(30));
    for mut stream in [&accepted, &queued] {
        std::io::Write::write_all(&mut stream, GET).unwrap();
    }
    for stream in [accepted, queued] {
        stream.set_nonblocking(true).unwrap();
        go.notify_one();
        let answer = read_all(&mut TcpStream::from_std(stream).unwrap()).await;
        let answer = Answer::parse(&answer);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    server.task.await.unwrap().unwrap();
}

fn std_stream(stream: TcpStream) -> std::net::TcpStream {
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// One who only connects does not hold it for long.
#[tokio::test(start_paused = true)]
async fn who_connected_and_sends_nothing_is_not_waited_for() {
    let (server, ..) = waiting().await;
    let _silent = server.connect().await;
    let begun = Instant::now();
    server.stop(Duration::from_secs(30)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

async fn first_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    while !answer.ends_with("finished") {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "{answer}");
        answer.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn http2_is_told_to_go_away_and_ends_its_streams() {
    let (server, at_work, go) = waiting().await;
    let (mut sender, connection) = http2(&server).await;
    let connection = tokio::spawn(connection);
    let answer = tokio::spawn(sender.send_request(request()));
    until("the handler has begun", || at_work.count() == 1).await;
    server.trigger.shutdown(Duration::from_secs(30));
    refused(server.address).await;
    go.notify_one();
    let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "finished");
    // Without a GOAWAY both sides would keep the idle connection.
    let ended = async {
        server.task.await.unwrap().unwrap();
        connection.await.unwrap().unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn http2_streams_are_cut_with_their_connection() {
    let (server, at_work, _go) = waiting().await;
    let (mut sender, connection) = http2(&server).await;
    tokio::spawn(connection);
    let answer = tokio::spawn(sender.send_request(request()));
    until("the handler has begun", || at_work.count() == 1).await;
    server.stop(Duration::from_secs(3)).await.unwrap();
    assert!(answer.await.unwrap().is_err());
    until("the handler was dropped", || at_work.count() == 0).await;
}

/// Waits until nobody accepts there any more.
async fn refused(address: SocketAddr) {
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap();
}

fn request() -> Request<Body> {
    Request::builder().uri("http://test/").body(Body::empty()).unwrap()
}

async fn http2(
    server: &Running,
) -> (
    hyper::client::conn::http2::SendRequest<Body>,
    impl Future<Output = hyper::Result<()>> + Send + 'static,
) {
    let io = TokioIo::new(server.connect().await);
    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap()
}
