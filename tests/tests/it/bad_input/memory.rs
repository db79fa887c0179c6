//! The memory of a service does not grow while all of it happens at once.
//!
//! A few seconds of it; `CHASSIS_FAULT_SECONDS=3600` makes it an hour.

use std::{net::SocketAddr, time::Duration};

use chassis_test::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use super::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, get,
};
use crate::{
    hello::{Hello, SOON},
    wire,
};

/// How much it may have grown at the end, in kB: pages that the allocator keeps.
const GROWTH: u64 = 16 * 1024;

fn seconds() -> u64 {
    let seconds = std::env::var("CHASSIS_FAULT_SECONDS").ok();
    seconds.and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// One of everything, on a connection of its own, cut off where it has not ended.
async fn one(address: SocketAddr, number: u64) {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let kept = |what: &str| format!("{what} HTTP/1.1\r\nhost: test\r\n");
    let bytes = match number % 12 {
        0 => format!("{}\r\n", kept(&format!("GET /orders/{number}"))).into_bytes(),
        1 => format!("{}\r\n", kept(&format!("M{number} /{number}"))).into_bytes(),
        2 => format!("{}user-agent: {number}\r\n\r\n", kept("GET /panic")).into_bytes(),
        3 => format!("{}content-length: 100\r\n\r\nhalf", kept("POST /echo")).into_bytes(),
        4 => format!("{}content-length: 99999999\r\n\r\n", kept("POST /echo")).into_bytes(),
        5 => format!("{}x-long: {}", kept("GET /"), "x".repeat(60_000)).into_bytes(),
        6 => vec![(number % 256) as u8; 5_000],
        7 => PREFACE[..(number % 24) as usize].to_vec(),
        8 => {
            let resets = (0..200).flat_map(|n: u32| {
                let head = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get("/orders/7"));
                [head, frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
            });
            [PREFACE, &settings, &resets.collect::<Vec<u8>>()].concat()
        }
        9 => [PREFACE, &frame(PING, 0, 0, &[1; 8]).repeat(2_000)].concat(),
        10 => [PREFACE, &settings.repeat(2_000)].concat(),
        _ => {
            let head = frame(HEADERS, END_STREAM, 1, &get("/"));
            let more = super::frames::head(&[("x-more", &[b'x'; 100])]);
            [PREFACE, &settings, &head, &frame(CONTINUATION, 0, 1, &more).repeat(1_000)].concat()
        }
    };
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    if number.is_multiple_of(3) {
        let _ = stream.set_zero_linger();
    }
    let all = async {
        let _ = stream.write_all(&bytes).await;
        let mut some = [0; 4096];
        let _ = stream.read(&mut some).await;
    };
    let _ = tokio::time::timeout(Duration::from_millis(20), all).await;
}

async fn all_of_it(address: SocketAddr, until: Instant) -> u64 {
    let mut under_way = JoinSet::new();
    let mut number = 0;
    while Instant::now() < until {
        under_way.spawn(one(address, number));
        number += 1;
        if under_way.len() >= 64 {
            under_way.join_next().await;
        }
    }
    under_way.join_all().await;
    number
}

/// What it has in memory when nothing is open any more, in kB.
async fn resident(hello: &Hello) -> u64 {
    eventually("all connections are gone", SOON, async || {
        let metrics = wire::get(hello.admin, "/metrics", &[]).await.body;
        let none = |line: &str| line.starts_with("server_connections{server=\"http\"} 0");
        metrics.lines().any(none).then_some(())
    })
    .await;
    hello.resident_kb()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_while_all_of_it_happens() {
    let vars = [("TELEMETRY__LOG_FILTER", "off"), ("HTTP__HEADER_TIMEOUT", "2s")];
    let mut hello = Hello::start(&vars).await;
    // Until everything has been there once: tables, pools, threads.
    all_of_it(hello.http, Instant::now() + Duration::from_secs(3)).await;
    let before = resident(&hello).await;
    let until = Instant::now() + Duration::from_secs(seconds());
    let connections = all_of_it(hello.http, until).await;
    let after = resident(&hello).await;
    assert!(connections > 500, "{connections}");
    assert!(after < before + GROWTH, "{before} kB, {after} kB after {connections} connections");
    assert_eq!(wire::get(hello.http, "/orders/7", &[]).await.status, 200);
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
}
