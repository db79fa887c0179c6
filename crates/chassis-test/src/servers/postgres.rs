//! PostgreSQL for tests.
//!
//! Each test takes a database of its own with [`Postgres::database`], so tests need not
//! clean up and may run at the same time.

use std::{
    ffi::OsString,
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

use super::{
    binary, port,
    supervisor::{Plan, Supervised, User},
};

/// How long a server may take until it answers. Recovery after a crash is part of it.
const START: Duration = Duration::from_secs(60);
/// How often to try another port when one was taken in between.
const PORTS: usize = 5;

/// Makes commits cheap. A crash of the server loses nothing; only a crash of the machine
/// would, and that ends the test anyway. `synchronous_commit` stays on, because without it
/// a crash of the server does lose commits.
const FAST: [&str; 5] =
    ["fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=200", "jit=off"];

static SHARED: OnceCell<Postgres> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A PostgreSQL server. Dropping it ends a server that was started here.
pub struct Postgres {
    /// Without a database name.
    base: Url,
    own: Option<Own>,
}

struct Own {
    // Before the plan: a server ends before its folder is removed.
    running: Mutex<Option<Supervised>>,
    plan: Plan,
    port: u16,
}

impl Postgres {
    /// The server of `DATABASE_URL`, or a new one.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message holds its log.
    pub async fn start_or_url() -> Postgres {
        match std::env::var("DATABASE_URL") {
            Ok(url) if url.starts_with("postgres") => {
                Postgres { base: Url::parse(&url), own: None }
            }
            _ => Postgres::start().await,
        }
    }

    /// The server that all tests of this binary share; started by the first.
    ///
    /// Dropping the future leaves the start to the next caller.
    ///
    /// # Panics
    /// As [`start_or_url`](Self::start_or_url).
    pub async fn shared() -> &'static Postgres {
        SHARED.get_or_init(Postgres::start_or_url).await
    }

    /// A server of one's own, whatever `DATABASE_URL` says: for tests that stop it.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message holds its log.
    pub async fn start() -> Postgres {
        let plan = tokio::task::spawn_blocking(initialise)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        for _ in 0..PORTS {
            let port = port::free();
            let server = plan.start(&arguments(&plan, port));
            let base = Url::parse(&format!("postgres://postgres@127.0.0.1:{port}/"));
            if let Some(server) = answering(server, &base).await {
                let own = Own { plan, port, running: Mutex::new(Some(server)) };
                return Postgres { base, own: Some(own) };
            }
        }
        panic!("postgres did not start; its last lines:\n{}", plan.last_words());
    }

    /// Creates an empty database whose name begins with `name`, and returns its URL.
    ///
    /// The name is made unique, so that a second run against the same server works.
    /// Dropping the future may leave the database behind.
    ///
    /// # Panics
    /// When the server does not answer or refuses.
    pub async fn database(&self, name: &str) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}_{}_{number}", std::process::id());
        let sql = format!("create database \"{}\"", name.replace('"', "\"\""));
        let created = async {
            let mut connection = PgConnection::connect(&self.base.database("postgres")).await?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
            connection.close().await
        };
        if let Err(error) = created.await {
            panic!("cannot create the database {name}: {error}");
        }
        self.base.database(&name)
    }

    /// The URL of a database of this name, whether it exists or not.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.base.database(database)
    }

    /// Host and port, for a [`FaultProxy`](crate::FaultProxy).
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.address()
    }

    /// Ends the server at once, as a crash does; the data stay. Does nothing if it is down.
    ///
    /// # Panics
    /// When the server is the one of `DATABASE_URL`.
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
    /// When the server is the one of `DATABASE_URL`, or does not start.
    pub async fn restart(&self) {
        self.stop();
        let own = self.expect_own();
        let server = own.plan.start(&arguments(&own.plan, own.port));
        match answering(server, &self.base).await {
            Some(server) => *self.running() = Some(server),
            None => panic!("postgres did not come back:\n{}", own.plan.last_words()),
        }
    }

    fn expect_own(&self) -> &Own {
        self.own.as_ref().unwrap_or_else(|| {
            panic!("the server of DATABASE_URL cannot be stopped; use Postgres::start")
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.expect_own().running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a data folder with `initdb`.
fn initialise() -> Plan {
    let program = binary::find("postgres", "postgresql");
    let initdb = binary::find("initdb", "postgresql");
    let folder = tempfile::Builder::new()
        .prefix("chassis-postgres-")
        .tempdir()
        .unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
    let user = User::instead_of_root("postgres", folder.path());
    let mut command = Command::new(initdb);
    command
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--no-sync", "--no-instructions", "--pgdata"])
        .arg(folder.path().join("data"))
        .current_dir(folder.path());
    if let Some(user) = user {
        user.own(folder.path());
        user.run(&mut command);
    }
    let output = command.output().unwrap_or_else(|error| panic!("cannot run initdb: {error}"));
    if !output.status.success() {
        panic!("initdb failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    // QUIT is PostgreSQL's immediate shutdown: no checkpoint, recovery at the next start.
    // KILL would leave its children behind.
    Plan { folder, program, signal: "QUIT", user }
}

fn arguments(plan: &Plan, port: u16) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), plan.folder.path().join("data").into()];
    arguments.extend(["-p".into(), port.to_string().into()]);
    // Loopback only, and no socket file, whose path may be too long for the kernel.
    let places = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
    for setting in places.into_iter().chain(FAST) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    arguments
}

/// Waits until the server answers; `None` if it ended by itself.
async fn answering(mut server: Supervised, base: &Url) -> Option<Supervised> {
    let url = base.database("postgres");
    let end = tokio::time::Instant::now() + START;
    while tokio::time::Instant::now() < end && !server.has_ended() {
        if let Ok(connection) = PgConnection::connect(&url).await {
            // An error while closing says nothing about the server.
            let _ = connection.close().await;
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// A database URL whose database can be exchanged.
struct Url {
    before: String,
    after: String,
    address: String,
}

impl Url {
    fn parse(url: &str) -> Url {
        let (rest, query) = match url.split_once('?') {
            Some((rest, query)) => (rest, format!("?{query}")),
            None => (url, String::new()),
        };
        let (scheme, rest) = rest.split_once("://").unwrap_or(("postgres", rest));
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:5432") };
        Url { before: format!("{scheme}://{authority}/"), after: query, address }
    }

    fn database(&self, name: &str) -> String {
        format!("{}{name}{}", self.before, self.after)
    }

    fn address(&self) -> &str {
        &self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_exchanged() {
        for (given, expected, address) in [
            ("postgres://h/old", "postgres://h/new", "h:5432"),
            ("postgres://u:p@h:5433", "postgres://u:p@h:5433/new", "h:5433"),
            (
                "postgresql://u@h:1/old?sslmode=disable",
                "postgresql://u@h:1/new?sslmode=disable",
                "h:1",
            ),
        ] {
            let url = Url::parse(given);
            assert_eq!(url.database("new"), expected);
            assert_eq!(url.address(), address);
        }
    }
}
