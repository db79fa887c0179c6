//! Sockets that are handed over, as systemd does it: they outlive each process that serves them.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    process::Child,
};

use crate::{
    hello::{SOON, handed_over, run},
    wire,
};

const GET: &[u8] = b"GET /orders/7 HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
const READY: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

struct Sockets {
    http: std::net::TcpListener,
    admin: std::os::unix::net::UnixListener,
}

impl Sockets {
    fn new(folder: &Path) -> Sockets {
        Sockets {
            http: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            admin: std::os::unix::net::UnixListener::bind(folder.join("admin.sock")).unwrap(),
        }
    }

    fn give(&self) -> [OwnedFd; 2] {
        [self.http.try_clone().unwrap().into(), self.admin.try_clone().unwrap().into()]
    }

    /// Starts the service with them, the one by its name and the other by its number.
    fn serve(&self, folder: &Path) -> Child {
        let vars = [("HTTP__SOCKET__SYSTEMD", "web"), ("ADMIN__SOCKET__SYSTEMD", "1")];
        let log = File::create(folder.join("log")).unwrap();
        handed_over(self.give(), "web:control", &vars).stderr(log).spawn().unwrap()
    }
}

#[tokio::test]
async fn a_socket_of_systemd_outlives_the_processes_and_loses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(folder.path());
    let address = sockets.http.local_addr().unwrap();
    for round in 0..2 {
        // Both connect before anybody serves: the socket keeps them.
        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(GET).await.unwrap();
        let mut operator = UnixStream::connect(folder.path().join("admin.sock")).await.unwrap();
        operator.write_all(READY).await.unwrap();

        let mut child = sockets.serve(folder.path());
        let answer = tokio::time::timeout(SOON, wire::read(&mut caller)).await.unwrap();
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(answer.unwrap_or_else(|| panic!("{round}: {}", log())).status, 200);
        let answer = tokio::time::timeout(SOON, wire::read(&mut operator)).await.unwrap();
        // Asked before everything has started, it may say so.
        assert!([200, 503].contains(&answer.unwrap().status), "{round}");

        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::time::timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(0), "{}", log());
        assert!(folder.path().join("admin.sock").exists(), "it is not ours to remove");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named_with_those_that_are() {
    let vars = [("HTTP__SOCKET__SYSTEMD", "web"), ("ADMIN__PORT", "0")];
    let output = run(&[], &vars).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("systemd:web") && said.contains("no socket was handed over"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(folder.path());
    let vars = [("HTTP__SOCKET__SYSTEMD", "wbe"), ("ADMIN__PORT", "0")];
    let mut command = handed_over(sockets.give(), "web:control", &vars);
    let log = File::create(folder.path().join("log")).unwrap();
    let ended = tokio::time::timeout(SOON, command.stderr(log).status()).await.unwrap().unwrap();
    let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("web, control"), "{said}");
}
