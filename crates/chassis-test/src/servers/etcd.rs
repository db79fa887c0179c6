//! etcd for tests, one member.

use std::{
    ffi::OsString,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    binary, port,
    supervisor::{Plan, Supervised},
};

/// How long a server may take until it answers. Electing itself is part of it.
const START: Duration = Duration::from_secs(30);
/// How often to try other ports when one was taken in between.
const PORTS: usize = 5;

/// An etcd server. Dropping it ends it.
pub struct Etcd {
    // Before the plan: a server ends before its folder is removed.
    running: Mutex<Option<Supervised>>,
    plan: Plan,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
}

impl Etcd {
    /// Starts a server.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Panics
    /// When `etcd` is not installed or does not start; the message holds its log.
    pub async fn start() -> Etcd {
        let folder = tempfile::Builder::new()
            .prefix("chassis-etcd-")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
        let program = binary::find("etcd", "etcd-server");
        let plan = Plan { folder, program, signal: "KILL", user: None };
        for _ in 0..PORTS {
            let ports = Ports { client: port::free(), peer: port::free() };
            let server = plan.start(&arguments(&plan, ports));
            if let Some(server) = answering(server, ports.client).await {
                return Etcd { plan, ports, running: Mutex::new(Some(server)) };
            }
        }
        panic!("etcd did not start; its last lines:\n{}", plan.last_words());
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.client)
    }

    /// Ends the server at once, as a crash does; its data stay. Does nothing if it is down.
    pub fn stop(&self) {
        if let Some(server) = self.running().take() {
            server.stop();
        }
    }

    /// Ends the server if it runs, starts it again on the same port and data, and waits
    /// until it answers.
    ///
    /// Dropping the future leaves the server stopped.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn restart(&self) {
        self.stop();
        let server = self.plan.start(&arguments(&self.plan, self.ports));
        match answering(server, self.ports.client).await {
            Some(server) => *self.running() = Some(server),
            None => panic!("etcd did not come back:\n{}", self.plan.last_words()),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn arguments(plan: &Plan, ports: Ports) -> Vec<OsString> {
    let client = format!("http://127.0.0.1:{}", ports.client);
    let peer = format!("http://127.0.0.1:{}", ports.peer);
    let mut arguments: Vec<OsString> =
        vec!["--data-dir".into(), plan.folder.path().join("data").into()];
    for (name, value) in [
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer.clone()),
        ("--initial-cluster", format!("default={peer}")),
        // Alone, it need not wait long to elect itself; leases may be as short.
        ("--heartbeat-interval", "20".to_owned()),
        ("--election-timeout", "200".to_owned()),
    ] {
        arguments.extend([name.into(), value.into()]);
    }
    arguments
}

/// Waits until the server is healthy, which it is once it has elected itself; `None` if it
/// ended by itself.
async fn answering(mut server: Supervised, port: u16) -> Option<Supervised> {
    let end = Instant::now() + START;
    while Instant::now() < end && !server.has_ended() {
        if is_healthy(port).await {
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

async fn is_healthy(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.contains("\"health\":\"true\""))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
