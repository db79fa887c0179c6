//! Floods of HTTP/2: each frame of them is allowed, so many are not.

use std::net::SocketAddr;

use chassis::Env;
use tokio::io::AsyncWriteExt as _;

use super::{
    CALL,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING,
        RST_STREAM, SETTINGS, Written, call, connect, frame, get, write_many,
    },
    is_left_alone, others_are_served, serve,
};
use crate::service::Service;

/// More of each than any client means to send.
const MANY: usize = 20_000;

/// The servers, their labels and heads of requests that are never answered.
fn both(service: &Service) -> [(&'static str, SocketAddr, Vec<u8>); 2] {
    [
        ("http", service.address("http"), get("/silent")),
        ("grpc", service.address("grpc"), call(CALL)),
    ]
}

fn in_flight(env: &Env, kind: &str) -> u64 {
    env.in_flight().counts().get(kind).copied().unwrap_or_default()
}

/// CVE-2023-44487: each reset makes room for the next request, and the work of all of them goes on.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_and_the_work() {
    let service = serve().await;
    for (server, address, head) in both(&service) {
        let mut stream = connect(address).await;
        let mut flood = Vec::new();
        for number in 0..MANY {
            let id = u32::try_from(2 * number + 1).unwrap();
            flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &head));
            flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        }
        let (mut reading, mut writing) = stream.split();
        // It may be closed before all of it is written.
        let (_, frames) = tokio::join!(writing.write_all(&flood), async {
            let mut bytes = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes).await;
            super::frames::frames(&bytes)
        });
        let goaway = frames.iter().find(|(kind, ..)| *kind == GOAWAY);
        let (.., payload) = goaway.unwrap_or_else(|| panic!("{server}: no GOAWAY"));
        assert_eq!(payload[7], ENHANCE_YOUR_CALM, "{server}");
        others_are_served(service.address("http")).await;
        is_left_alone(&service.env, server).await;
    }
    service.stop().await;
}

/// Requests that are not reset wait for a place: 200 of HTTP, 256 of gRPC.
#[tokio::test]
async fn no_more_requests_are_begun_on_a_connection_than_are_allowed() {
    let service = serve().await;
    for (server, address, head) in both(&service) {
        let most = if server == "http" { 200 } else { 256 };
        let mut stream = connect(address).await;
        let mut flood = Vec::new();
        for number in 0..2 * most {
            let id = u32::try_from(2 * number + 1).unwrap();
            flood.extend(frame(HEADERS, END_HEADERS, id, &head));
            if server == "grpc" {
                // The handler begins with the message.
                flood.extend(frame(DATA, END_STREAM, id, &[0; 5]));
            }
        }
        let _ = stream.write_all(&flood).await;
        chassis_test::eventually("they are begun", crate::hello::SOON, async || {
            (in_flight(&service.env, server) >= most).then_some(())
        })
        .await;
        others_are_served(service.address("http")).await;
        assert_eq!(in_flight(&service.env, server), most, "{server}");
        drop(stream);
        is_left_alone(&service.env, server).await;
    }
    service.stop().await;
}

/// Each wants an answer. Who does not read them is not read any more.
#[tokio::test]
async fn floods_of_pings_and_settings_are_held_up_by_their_own_answers() {
    let service = serve().await;
    for (_, address, _) in both(&service) {
        for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[])] {
            let mut stream = connect(address).await;
            let some = frame(kind, 0, 0, payload).repeat(1_000);
            let written = write_many(&mut stream, &some, 100 * MANY / 1_000).await;
            assert_ne!(written, Written::All, "two million frames of {kind}");
            others_are_served(service.address("http")).await;
        }
    }
    service.stop().await;
}

/// CVE-2024-27316: a head that never ends, none of which is over the limit until it does.
#[tokio::test]
async fn a_head_without_an_end_is_cut() {
    let service = serve().await;
    for (server, address, head) in both(&service) {
        let mut stream = connect(address).await;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, &head)).await.unwrap();
        let more = super::frames::head(&[("x-more", &[b'x'; 100])]);
        let next = frame(CONTINUATION, 0, 1, &more).repeat(100);
        let (mut reading, mut writing) = stream.into_split();
        let writer = tokio::spawn(async move {
            for _ in 0..MANY {
                if writing.write_all(&next).await.is_err() {
                    return true;
                }
            }
            false
        });
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes).await;
        assert!(writer.await.unwrap(), "{server}: 200 MB of it were taken");
        others_are_served(service.address("http")).await;
        is_left_alone(&service.env, server).await;
    }
    service.stop().await;
}

/// Frames that carry nothing cost the server and not the window of the client.
#[tokio::test]
async fn a_flood_of_empty_data_ends_the_connection() {
    let service = serve().await;
    let head = super::frames::head(&[
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", b"/echo"),
        (":authority", b"test"),
    ]);
    for (server, address, head) in
        [("http", service.address("http"), head), ("grpc", service.address("grpc"), call(CALL))]
    {
        let mut stream = connect(address).await;
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
        let empty = frame(DATA, 0, 1, &[]).repeat(1_000);
        let written = write_many(&mut stream, &empty, MANY).await;
        assert_eq!(written, Written::Closed, "{server}: {MANY} thousand frames");
        others_are_served(service.address("http")).await;
        is_left_alone(&service.env, server).await;
    }
    service.stop().await;
}
