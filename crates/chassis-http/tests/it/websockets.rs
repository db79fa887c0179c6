//! WebSockets: what they hear, how they end, and that they have a place like any connection.

use std::time::Duration;

use axum::{Router, routing::get};
use chassis_http::{
    ServerConfig,
    websocket::{Socket, WebSocketUpgrade, WebSockets},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, protocol::frame::coding::CloseCode},
};

use crate::{
    support::{Running, config, serve, until},
    web::{Web, web},
};

async fn open(server: &Running, path: &str) -> WebSocketStream<TcpStream> {
    let stream = server.connect().await;
    client_async(format!("ws://test{path}"), stream).await.unwrap().0
}

fn connections(server: &Running) -> i64 {
    server.env.metrics().gauge("server_connections", "", &[("server", "http")]).get()
}

/// What it hears next, pings answered meanwhile.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    loop {
        match tokio::time::timeout(Duration::from_secs(100), socket.next()).await.unwrap() {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return Some(message),
            Some(Err(_)) | None => return None,
        }
    }
}

fn closed_by(message: Option<Message>) -> Option<CloseCode> {
    match message {
        Some(Message::Close(Some(frame))) => Some(frame.code),
        _ => None,
    }
}

#[tokio::test]
async fn a_socket_answers_and_counts_as_the_connection_that_it_is() {
    let config = ServerConfig { max_connections: 1, ..config() };
    let Web { server, .. } = web(&config, WebSockets::default()).await;
    let mut socket = open(&server, "/echo").await;
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(hear(&mut socket).await, Some(Message::text(text)));
    }
    assert_eq!(connections(&server), 1);
    assert_eq!(server.env.in_flight().counts()["websocket"], 1);
    // It has the only place.
    let second = server.get("/note", "");
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the second was served beside it");
    socket.close(None).await.unwrap();
    while hear(&mut socket).await.is_some() {}
    assert_eq!(second.await.status, 200);
    until("it is gone", || server.env.in_flight().counts()["websocket"] == 0).await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_it() {
    let sockets = WebSockets { max_message_bytes: 1_000, ..WebSockets::default() };
    let Web { server, .. } = web(&config(), sockets).await;
    let mut socket = open(&server, "/echo").await;
    let fits = Message::text("x".repeat(1_000));
    socket.send(fits.clone()).await.unwrap();
    assert_eq!(hear(&mut socket).await, Some(fits));
    socket.send(Message::text("x".repeat(1_001))).await.unwrap();
    assert!(!matches!(hear(&mut socket).await, Some(Message::Text(_))));
    until("it is gone", || connections(&server) == 0).await;
}

#[tokio::test]
async fn a_drain_says_goodbye_and_nobody_new_is_upgraded() {
    let Web { server, .. } = web(&config(), WebSockets::default()).await;
    let mut socket = open(&server, "/echo").await;
    socket.send(Message::text("one")).await.unwrap();
    assert_eq!(hear(&mut socket).await, Some(Message::text("one")));
    server.env.health().set_draining();
    assert_eq!(closed_by(hear(&mut socket).await), Some(CloseCode::Away));
    let stream = server.connect().await;
    match client_async("ws://test/echo", stream).await.unwrap_err() {
        tungstenite::Error::Http(answer) => assert_eq!(answer.status(), 503),
        other => panic!("{other}"),
    }
    drop(socket);
    let stop = server.stop(Duration::from_secs(60));
    tokio::time::timeout(Duration::from_secs(10), stop).await.expect("it drains").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_listen_is_cut_with_the_drain() {
    async fn deaf(upgrade: WebSocketUpgrade) -> axum::response::Response {
        WebSockets::default().accept(upgrade, |mut socket: Socket| async move {
            // It waits for one message and then for nothing.
            socket.recv().await;
            let _still_open = socket;
            std::future::pending().await
        })
    }
    async fn raw(upgrade: WebSocketUpgrade) -> axum::response::Response {
        // axum's own, which knows no drain.
        upgrade.on_upgrade(|mut socket| async move { while socket.recv().await.is_some() {} })
    }
    let router = Router::new().route("/deaf", get(deaf)).route("/raw", get(raw));
    let server = serve("greeter", router).await;
    let mut raw = open(&server, "/raw").await;
    raw.send(Message::text("one")).await.unwrap();
    let mut deaf = open(&server, "/deaf").await;
    deaf.send(Message::text("one")).await.unwrap();
    until("both are open", || connections(&server) == 2).await;
    let begun = Instant::now();
    server.stop(Duration::from_secs(3)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(hear(&mut raw).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_stays_and_one_that_is_silent_is_sent_away() {
    let sockets = WebSockets { idle_timeout: Duration::from_secs(20), ..WebSockets::default() };
    let Web { server, .. } = web(&config(), sockets).await;
    // It reads, and with that it answers pings.
    let mut alive = open(&server, "/echo").await;
    let reads = tokio::time::timeout(Duration::from_secs(90), alive.next());
    let pinged = reads.await.expect("it is asked").unwrap().unwrap();
    assert!(matches!(pinged, Message::Ping(_)), "{pinged:?}");
    let stays = async {
        loop {
            match alive.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                other => return other,
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(90), stays).await.is_err());
    drop(alive);
    until("it is gone", || connections(&server) == 0).await;

    // It does not read.
    let silent = open(&server, "/echo").await;
    let begun = Instant::now();
    let gone = async {
        while connections(&server) > 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it is sent away");
    let waited = begun.elapsed().as_secs();
    assert!((19..=32).contains(&waited), "{waited} s");
    drop(silent);
}
