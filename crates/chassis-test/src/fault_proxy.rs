//! A TCP proxy that misbehaves when told to.
//!
//! It stands between a client and a server on loopback and shows a client what a real
//! network shows it: connections that break, answers that come late, and a direction that
//! goes silent while the connection looks alive. The last is the fault that finds missing
//! timeouts. A byte stream has no holes, so a silent direction holds its bytes back and
//! delivers them on [`heal`](FaultProxy::heal), as TCP does by retransmission.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// One way through the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: answers.
    ToClient,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    refuse: bool,
    delay: Duration,
    silent_to_server: bool,
    silent_to_client: bool,
    /// Connections made before the latest cut have a lower generation, and end.
    generation: u64,
}

impl Faults {
    fn silent(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.silent_to_server,
            Direction::ToClient => self.silent_to_client,
        }
    }
}

/// A TCP proxy on loopback to one upstream address. Ends when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    open: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy on a free port to `upstream` (`host:port`), which need not be up yet.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Panics
    /// When no loopback port can be bound.
    pub async fn start(upstream: impl Into<String>) -> FaultProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap_or_else(|error| panic!("cannot bind a loopback port: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("a bound socket without an address: {error}"));
        let (faults, _) = watch::channel(Faults::default());
        let open = Arc::new(AtomicUsize::new(0));
        let accepting =
            tokio::spawn(accept(listener, upstream.into(), faults.clone(), Arc::clone(&open)));
        FaultProxy { address, faults, open, accepting }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections pass through now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Breaks every connection, and every new one at once, until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.faults.send_modify(|faults| {
            faults.refuse = true;
            faults.generation += 1;
        });
    }

    /// Breaks every connection once; new ones work.
    pub fn kill_connections(&self) {
        self.faults.send_modify(|faults| faults.generation += 1);
    }

    /// Holds each chunk of bytes back for this long, in both directions.
    pub fn delay(&self, time: Duration) {
        self.faults.send_modify(|faults| faults.delay = time);
    }

    /// Lets nothing through in one direction; the connection stays open.
    pub fn silence(&self, direction: Direction) {
        self.faults.send_modify(|faults| match direction {
            Direction::ToServer => faults.silent_to_server = true,
            Direction::ToClient => faults.silent_to_client = true,
        });
    }

    /// Ends every fault; what was held back is delivered.
    pub fn heal(&self) {
        self.faults.send_modify(|faults| {
            *faults = Faults { generation: faults.generation, ..Faults::default() };
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections live in a set inside the task, so they end with it.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    faults: watch::Sender<Faults>,
    open: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let now = *faults.borrow();
                if now.refuse {
                    continue;
                }
                let watch = faults.subscribe();
                let counted = Counted::new(&open);
                let upstream = upstream.clone();
                connections.spawn(async move {
                    let _counted = counted;
                    pass(client, &upstream, watch, now.generation).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Counts an open connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn pass(
    client: TcpStream,
    upstream: &str,
    mut faults: watch::Receiver<Faults>,
    generation: u64,
) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    // Nagle's algorithm would add delays of its own to the ones asked for.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = copy(from_client, to_server, faults.clone(), Direction::ToServer);
    let answers = copy(from_server, to_client, faults.clone(), Direction::ToClient);
    tokio::select! {
        () = async { tokio::join!(requests, answers); } => {}
        _ = faults.wait_for(|faults| faults.generation != generation) => {}
    }
}

/// Copies until the source ends, then ends the target's direction as TCP does.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut faults: watch::Receiver<Faults>,
    direction: Direction,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if faults.wait_for(|faults| !faults.silent(direction)).await.is_err() {
            break;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // An error here means that the other side is gone already.
    let _ = to.shutdown().await;
}
