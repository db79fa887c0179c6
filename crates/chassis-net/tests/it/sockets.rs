//! Sockets of a path, and ports that several listen on.

use std::{
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
};

use chassis_core::{Error, config::SocketConfig};
use chassis_net::tls::ServerTlsConfig;
use chassis_test::eventually;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};
use tokio_rustls::TlsConnector;

use crate::{
    ASK, SOON, Server, ask,
    certificates::{Authority, Files},
    limits, rest,
};

fn unix(path: &Path) -> SocketConfig {
    SocketConfig { unix: path.to_owned(), ..SocketConfig::default() }
}

fn shared() -> SocketConfig {
    SocketConfig { reuse_port: true, ..SocketConfig::default() }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("greeter.sock");
    (folder, path)
}

async fn start(socket: &SocketConfig) -> Result<Server, Error> {
    Server::start_on(socket, limits(), &ServerTlsConfig::default()).await
}

async fn hear(path: &Path) -> String {
    ask(&mut UnixStream::connect(path).await.unwrap()).await
}

#[tokio::test]
async fn a_unix_socket_is_served_for_whom_its_mode_allows_and_removed_at_the_end() {
    let (_folder, path) = folder();
    for (mode, bits) in [("660", 0o660), ("600", 0o600), ("777", 0o777)] {
        let socket = SocketConfig { mode: mode.to_owned(), ..unix(&path) };
        let server = start(&socket).await.unwrap();
        assert!(hear(&path).await.ends_with("hello"));
        let found = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o777, bits);
        let announced = server.env.unix_listeners();
        assert_eq!((announced[0].protocol, &announced[0].path), ("http", &path));
        assert!(server.env.listeners().is_empty());
        server.stop().await;
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_taken_over_and_one_that_lives_is_not() {
    let (_folder, path) = folder();
    // Dropped without a word, as by a kill: the file stays.
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = start(&unix(&path)).await.unwrap();
    assert!(hear(&path).await.ends_with("hello"));

    let error = start(&unix(&path)).await.err().unwrap();
    assert_eq!(error.reason(), "ADDRESS_IN_USE");
    for part in [path.to_str().unwrap(), "another process answers", "HTTP__SOCKET__UNIX"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(hear(&path).await.ends_with("hello"), "the other one goes on");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let (folder, path) = folder();
    std::fs::write(&path, "dear diary").unwrap();
    let error = start(&unix(&path)).await.err().unwrap();
    assert_eq!(error.reason(), "ADDRESS_IN_USE");
    assert!(error.message().contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary");

    let nowhere = folder.path().join("none").join("greeter.sock");
    let error = start(&unix(&nowhere)).await.err().unwrap();
    assert_eq!(error.reason(), "ADDRESS_NOT_HERE");
    assert!(error.message().contains("make the folder"), "{error}");
}

/// Each would find that nobody answers, remove the file, and leave the first one without callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_start_at_a_time_one_has_the_socket() {
    let (_folder, path) = folder();
    for _ in 0..20 {
        drop(StdListener::bind(&path).unwrap());
        let all = (0..8).map(|_| {
            let socket = unix(&path);
            tokio::spawn(async move { start(&socket).await })
        });
        let mut served = Vec::new();
        for one in all.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(server) => served.push(server),
                Err(error) => assert_eq!(error.reason(), "ADDRESS_IN_USE"),
            }
        }
        assert_eq!(served.len(), 1);
        assert!(hear(&path).await.ends_with("hello"));
        served.remove(0).stop().await;
    }
}

#[tokio::test]
async fn the_file_of_a_successor_is_not_removed() {
    let (_folder, path) = folder();
    let server = start(&unix(&path)).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let successor = StdListener::bind(&path).unwrap();
    let file = std::fs::metadata(&path).unwrap().ino();
    server.stop().await;
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), file);
    drop(successor);
}

#[tokio::test]
async fn who_connected_to_a_unix_socket_just_before_the_drain_is_answered() {
    let (_folder, path) = folder();
    let server = start(&unix(&path)).await.unwrap();
    // From here on nothing gives the server a turn: it is only known to the system.
    let queued = std::os::unix::net::UnixStream::connect(&path).unwrap();
    server.trigger.shutdown(SOON);
    std::io::Write::write_all(&mut &queued, ASK).unwrap();
    queued.set_nonblocking(true).unwrap();
    let mut queued = UnixStream::from_std(queued).unwrap();
    assert!(rest(&mut queued).await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_with_tls() {
    let (_folder, path) = folder();
    let authority = Authority::new();
    let files = Files::new(&authority.sign("greeter.test"));
    let server = Server::start_on(&unix(&path), limits(), &files.config()).await.unwrap();
    let client = authority.client(None, &["http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from("greeter.test").unwrap();
    let stream = UnixStream::connect(&path).await.unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(client));
    let mut stream = connector.connect(name, stream).await.unwrap();
    assert!(ask(&mut stream).await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn a_port_is_shared_by_those_that_want_to_and_by_nobody_else() {
    let first = start(&shared()).await.unwrap();
    let (limits, none) = (limits(), ServerTlsConfig::default());
    let start_beside = async |socket: &SocketConfig| {
        Server::start_at(first.address, socket, limits.clone(), &none).await
    };
    let error = start_beside(&SocketConfig::default()).await.err().unwrap();
    assert_eq!(error.reason(), "ADDRESS_IN_USE");
    let second = start_beside(&shared()).await.unwrap();
    assert_eq!(second.address, first.address);

    let open = |server: &Server| {
        server.env.metrics().gauge("server_connections", "", &[("server", "http")])
    };
    // The system chooses by a hash of the addresses: of many, each gets some.
    let mut kept = Vec::new();
    eventually("both are connected to", SOON, async || {
        kept.push(first.connect().await);
        (open(&first).get() > 0 && open(&second).get() > 0).then_some(())
    })
    .await;
    let mut asked = kept.pop().unwrap();
    asked.write_all(ASK).await.unwrap();
    assert!(rest(&mut asked).await.ends_with("hello"));
    drop(kept);
    // Who comes after the first has left finds the second.
    let address = first.address;
    first.stop().await;
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.ends_with("hello"));
    }
    second.stop().await;
}
