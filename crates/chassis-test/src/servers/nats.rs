//! NATS with JetStream for tests.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, sync::OnceCell, time::Instant};

use super::{
    binary, port,
    supervisor::{Plan, Supervised},
};

/// How long a server may take until it answers. Recovery of streams is part of it.
const START: Duration = Duration::from_secs(30);
/// How often to try another port when one was taken in between.
const PORTS: usize = 5;

/// Names another program than the `nats-server` of `PATH`: another version of it.
const PROGRAM: &str = "NATS_SERVER_PROGRAM";

static SHARED: OnceCell<Nats> = OnceCell::const_new();

/// A NATS server with JetStream. Dropping it ends a server that was started here.
pub struct Nats {
    url: String,
    own: Option<Own>,
}

struct Own {
    // Before the plan: a server ends before its folder is removed.
    running: Mutex<Option<Supervised>>,
    plan: Plan,
    port: u16,
}

impl Nats {
    /// The server of `NATS_URL`, or a new one.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Panics
    /// When `nats-server` is not installed or does not start; the message holds its log.
    pub async fn start_or_url() -> Nats {
        match std::env::var("NATS_URL") {
            Ok(url) if !url.is_empty() => Nats { url, own: None },
            _ => Nats::start().await,
        }
    }

    /// The server that all tests of this binary share; started by the first.
    ///
    /// Dropping the future leaves the start to the next caller.
    ///
    /// # Panics
    /// As [`start_or_url`](Self::start_or_url).
    pub async fn shared() -> &'static Nats {
        SHARED.get_or_init(Nats::start_or_url).await
    }

    /// A server of one's own, whatever `NATS_URL` says: for tests that stop it.
    ///
    /// `NATS_SERVER_PROGRAM` may name another program than the `nats-server` of `PATH`.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Panics
    /// When `nats-server` is not installed or does not start; the message holds its log.
    pub async fn start() -> Nats {
        let folder = tempfile::Builder::new()
            .prefix("chassis-nats-")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
        let program = std::env::var_os(PROGRAM).map(PathBuf::from);
        let program = program.unwrap_or_else(|| binary::find("nats-server", "nats-server"));
        let plan = Plan { folder, program, signal: "KILL", user: None };
        for _ in 0..PORTS {
            let port = port::free();
            let server = plan.start(&arguments(&plan, port));
            if let Some(server) = answering(server, port).await {
                let own = Own { plan, port, running: Mutex::new(Some(server)) };
                return Nats { url: format!("nats://127.0.0.1:{port}"), own: Some(own) };
            }
        }
        panic!("nats-server did not start; its last lines:\n{}", plan.last_words());
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port, for a [`FaultProxy`](crate::FaultProxy).
    #[must_use]
    pub fn address(&self) -> &str {
        let rest = self.url.rsplit("://").next().unwrap_or_default();
        rest.rsplit('@').next().unwrap_or_default()
    }

    /// The folder with the files of its streams, for tests that damage them.
    ///
    /// # Panics
    /// When the server is the one of `NATS_URL`.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        store(&self.expect_own().plan)
    }

    /// Ends the server at once, as a crash does; its streams stay. Does nothing if it is down.
    ///
    /// # Panics
    /// When the server is the one of `NATS_URL`.
    pub fn stop(&self) {
        if let Some(server) = self.running().take() {
            server.stop();
        }
    }

    /// Ends the server if it runs, starts it again on the same port and store, and waits
    /// until it answers.
    ///
    /// Dropping the future leaves the server stopped.
    ///
    /// # Panics
    /// When the server is the one of `NATS_URL`, or does not start.
    pub async fn restart(&self) {
        self.stop();
        let own = self.expect_own();
        match answering(own.plan.start(&arguments(&own.plan, own.port)), own.port).await {
            Some(server) => *self.running() = Some(server),
            None => panic!("nats-server did not come back:\n{}", own.plan.last_words()),
        }
    }

    fn expect_own(&self) -> &Own {
        self.own
            .as_ref()
            .unwrap_or_else(|| panic!("the server of NATS_URL cannot be stopped; use Nats::start"))
    }

    fn running(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.expect_own().running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn arguments(plan: &Plan, port: u16) -> Vec<OsString> {
    vec![
        "--addr".into(),
        "127.0.0.1".into(),
        "--port".into(),
        port.to_string().into(),
        "--jetstream".into(),
        "--store_dir".into(),
        store(plan).into(),
    ]
}

fn store(plan: &Plan) -> PathBuf {
    plan.folder.path().join("store")
}

/// Waits until the server greets a client; `None` if it ended by itself.
///
/// The greeting comes from the listener that opens last, after the streams are recovered.
async fn answering(mut server: Supervised, port: u16) -> Option<Supervised> {
    let end = Instant::now() + START;
    while Instant::now() < end && !server.has_ended() {
        if greets(port).await {
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        std::io::Result::Ok(&word == b"INFO ")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}
