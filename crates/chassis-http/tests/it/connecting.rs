//! Endpoints that cannot be connected to, and connections that end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{any, get},
};
use chassis_core::Env;
use chassis_discovery::{Discovery, Endpoint, Registrar, Registry, Target};
use chassis_http::Client;
use chassis_test::BlackHole;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::support::{discovery, serve, until};

fn hello() -> Router {
    Router::new().route("/", any(|| async { "hello" }))
}

/// The address of a container that is gone swallowed packets, and a rolling restart lost half
/// of the calls to time-outs and then to open circuits.
#[tokio::test]
async fn an_address_that_swallows_packets_costs_no_call() {
    let (hole, server) = (BlackHole::open().await, serve("greeter", hello()).await);
    let (discovery, _leases) = discovery("greeter", &[hole.address(), server.address]).await;
    let env = Env::test("caller");
    let client = Client::builder("greeter", &discovery).metrics(env.metrics()).build().unwrap();
    // None of them may be repeated, but for having never left.
    let calls = (0..100).map(|_| client.post("/").send());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    for _ in 0..100 {
        assert_eq!(client.post("/").send().await.unwrap().status(), 200);
    }
    let metrics = env.metrics().encode();
    for line in [
        r#"client_balancer_unreachable{protocol="http",service="greeter"} 1"#,
        r#"client_breaker_transitions_total{protocol="http",service="greeter",to="open"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_swallow_packets_calls_fail_at_once_after_the_first_time_out() {
    let hole = BlackHole::open().await;
    let (discovery, _leases) = discovery("greeter", &[hole.address()]).await;
    let client = Client::new("greeter", &discovery);
    let ask = async || {
        let begun = Instant::now();
        let error = client.get("/").send().await.unwrap_err();
        assert_eq!(error.reason(), "CONNECT_FAILED");
        assert!(error.was_not_sent());
        begun.elapsed()
    };
    let second = Duration::from_secs(1);
    let first = ask().await;
    assert!(first < 2 * second, "{first:?}");
    let later = ask().await;
    assert!(later < second / 2, "{later:?}");
}

#[tokio::test]
async fn the_idle_connections_to_an_endpoint_that_has_left_are_closed() {
    let (left, stays) = (serve("greeter", hello()).await, serve("greeter", hello()).await);
    let registry = Registry::new();
    let target = || Target::new("greeter", "http");
    let leaving = registry.register(target(), Endpoint::new(left.address)).await.unwrap();
    let client = Client::new("greeter", &Discovery::in_process(registry.clone()));
    client.get("/").send().await.unwrap().bytes().await.unwrap();
    let open =
        left.env.metrics().gauge("server_connections", "Open connections.", &[("server", "http")]);
    assert_eq!(open.get(), 1);

    let _staying = registry.register(target(), Endpoint::new(stays.address)).await.unwrap();
    leaving.release().await;
    // The next call sees the set.
    client.get("/").send().await.unwrap().bytes().await.unwrap();
    until("its connection is closed", || open.get() == 0).await;
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_costs_no_call() {
    let closes = || async { ([("connection", "close")], "bye") };
    let server = serve("greeter", Router::new().route("/", get(closes).post(closes))).await;
    let (discovery, _leases) = discovery("greeter", &[server.address]).await;
    let client = Client::new("greeter", &discovery);
    for _ in 0..50 {
        let answer = client.post("/").send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), "bye");
    }
}

/// Answers one request on the first connection and closes it when it has read the next one:
/// what a client sees of a server that closed an idle connection in the moment when a request
/// was on its way. What comes on later connections is answered.
async fn closes_on_the_second() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
                    stream.write_all(answer).await.unwrap();
                    if number == 0 {
                        // The next one is read and not answered.
                        let _ = stream.read(&mut request).await;
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_just_closed_is_repeated_if_that_is_safe() {
    for (method, key, expected) in [
        ("GET", None, Ok(200)),
        ("POST", Some("k-1"), Ok(200)),
        ("POST", None, Err("CONNECTION_LOST".to_owned())),
    ] {
        let (discovery, _leases) = discovery("greeter", &[closes_on_the_second().await]).await;
        let client = Client::new("greeter", &discovery);
        client.get("/").send().await.unwrap().bytes().await.unwrap();
        let mut request = client.request(method.parse().unwrap(), "/");
        if let Some(key) = key {
            request = request.idempotency_key(key);
        }
        let answer = request.send().await;
        let answer = answer.map(|answer| answer.status().as_u16());
        assert_eq!(answer.map_err(|error| error.reason().to_owned()), expected, "{method} {key:?}");
    }
}

/// The registry does not know it yet, as a DNS server does not: calls find out by themselves.
#[tokio::test]
async fn a_server_that_drains_under_load_loses_no_call() {
    let (leaving, staying) = (serve("greeter", hello()).await, serve("greeter", hello()).await);
    let (discovery, _leases) = discovery("greeter", &[leaving.address, staying.address]).await;
    let client = Client::new("greeter", &discovery);
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..8).map(|_| {
        let (client, done, stop) = (client.clone(), Arc::clone(&done), Arc::clone(&stop));
        tokio::spawn(async move {
            while stop.load(Ordering::SeqCst) == 0 {
                let answer = client.get("/").send().await.unwrap();
                assert_eq!(answer.bytes().await.unwrap(), "hello");
                done.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    until("calls are made", || done.load(Ordering::SeqCst) > 100).await;
    leaving.stop(Duration::from_secs(20)).await.unwrap();
    let before = done.load(Ordering::SeqCst);
    until("calls go on", || done.load(Ordering::SeqCst) > before + 100).await;
    stop.store(1, Ordering::SeqCst);
    for caller in callers {
        caller.await.expect("no call fails");
    }
}
