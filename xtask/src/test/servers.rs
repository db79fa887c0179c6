//! PostgreSQL and NATS for the parts that need them.
//!
//! An address that is given is used. Otherwise the server is started here, on a
//! free port and with its data in a temporary folder, so that a run neither
//! needs nor touches a server of the machine. They are started once for the
//! whole run and stopped when [`Servers`] is dropped.
//!
//! PostgreSQL refuses to run as root. Root starts it as the user `postgres`,
//! who then owns the data folder.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Failure;
use super::install::{self, Binary};
use crate::process::{Daemon, End, Runner, Stop};

/// Time for one attempt to reach a given server.
const REACH: Duration = Duration::from_secs(5);
/// Pause between two looks at a server that is starting.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks before a server that is starting is given up: 30 seconds.
const LOOKS: u32 = 600;
/// A free port may be taken before the server binds it; then another is tried.
const ATTEMPTS: u32 = 3;

/// What is done with the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The data is thrown away at the end, so it need not survive a power cut.
    Test,
    /// A commit costs what it costs elsewhere.
    Measure,
}

/// Addresses of running servers. Those started here stop when this is dropped.
pub(crate) struct Servers {
    pub(crate) database: String,
    pub(crate) broker: String,
    /// Process ids of those that were started here.
    pub(crate) pids: Vec<u32>,
    /// Dropped before the folder, which holds their data.
    _daemons: Vec<Daemon>,
    _folder: TempDir,
}

impl Servers {
    /// Checks the given addresses, or finds, installs and starts what is missing.
    pub(crate) fn obtain(runner: &mut Runner, purpose: Use) -> Result<Self, Failure> {
        let database = given("DATABASE_URL", 5432)?;
        let broker = given("NATS_URL", 4222)?;
        // Tests start it themselves.
        let mut wanted = vec![Binary::ETCD];
        if database.is_none() {
            wanted.push(Binary::POSTGRES);
        }
        if broker.is_none() {
            wanted.push(Binary::NATS);
        }
        install::ensure(&wanted, runner)?;

        let folder =
            TempDir::with_prefix("chassis-servers-").map_err(failed("temporary folder"))?;
        // The user `postgres` must reach its data folder below.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .map_err(failed("temporary folder"))?;
        let mut daemons = Vec::new();
        let mut own = |given: Option<String>, server: &dyn Server| match given {
            Some(url) => Ok(url),
            None => {
                let (daemon, url) = start(server, runner)?;
                daemons.push(daemon);
                Ok(url)
            }
        };
        let database = own(database, &Postgres::new(folder.path(), purpose))?;
        let broker = own(broker, &Nats::new(folder.path()))?;
        let pids = daemons.iter().map(Daemon::id).collect();
        Ok(Self { database, broker, pids, _daemons: daemons, _folder: folder })
    }
}

/// A kind of server that can be started here.
trait Server {
    fn name(&self) -> &'static str;
    fn stop(&self) -> Stop;
    /// What must be done once before the first start.
    fn prepare(&self, runner: &mut Runner) -> Result<(), Failure>;
    fn command(&self, port: u16) -> Result<Command, Failure>;
    fn is_ready(&self, port: u16) -> bool;
    fn url(&self, port: u16) -> String;
    fn log(&self) -> PathBuf;
}

fn start(server: &dyn Server, runner: &mut Runner) -> Result<(Daemon, String), Failure> {
    let name = server.name();
    server.prepare(runner)?;
    for _ in 0..ATTEMPTS {
        let port = free_port().map_err(failed("free port"))?;
        let log = File::create(server.log()).map_err(failed("log file"))?;
        let mut command = server.command(port)?;
        command.stdout(log.try_clone().map_err(failed("log file"))?).stderr(log);
        let mut daemon = Daemon::start(&mut command, server.stop()).map_err(failed(name))?;
        for _ in 0..LOOKS {
            if server.is_ready(port) {
                eprintln!("    {name}: started on 127.0.0.1:{port}");
                return Ok((daemon, server.url(port)));
            }
            if !matches!(daemon.exited(), Ok(None)) {
                break;
            }
            if runner.pause(PAUSE) {
                return Err(Failure::Interrupted);
            }
        }
    }
    let log = fs::read_to_string(server.log()).unwrap_or_default();
    for line in log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev() {
        eprintln!("    {name} | {line}");
    }
    Err(Failure::Failed(format!("{name} does not start; its last lines are above")))
}

struct Postgres {
    folder: PathBuf,
    /// The user to become, if this process is root.
    account: Option<(u32, u32)>,
    purpose: Use,
}

impl Postgres {
    fn new(folder: &Path, purpose: Use) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let root = rustix::process::geteuid().is_root();
        Self {
            folder: folder.join("postgres"),
            account: root.then(|| account(&passwd, "postgres")).flatten(),
            purpose,
        }
    }

    fn binary(&self, name: &str) -> Result<Command, Failure> {
        let folder = install::find(&Binary::POSTGRES)
            .ok_or_else(|| Failure::Failed(Binary::POSTGRES.advice()))?;
        let mut command = Command::new(folder.join(name));
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        // A message in another language would not be recognised by anyone.
        command.current_dir("/").env("LC_ALL", "C");
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Server for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn stop(&self) -> Stop {
        Stop::Interrupt
    }

    fn prepare(&self, runner: &mut Runner) -> Result<(), Failure> {
        if rustix::process::geteuid().is_root() && self.account.is_none() {
            let line = "postgres does not run as root, and /etc/passwd has no user `postgres`; \
                        create it (`useradd --system postgres`) or run as another user";
            return Err(Failure::Failed(line.to_owned()));
        }
        fs::create_dir_all(&self.folder).map_err(failed("data folder"))?;
        if let Some((user, group)) = self.account {
            chown(&self.folder, Some(user), Some(group)).map_err(failed("data folder"))?;
        }
        let log = File::create(self.log()).map_err(failed("log file"))?;
        let mut command = self.binary("initdb")?;
        command
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"])
            .args(["--no-sync", "--no-instructions", "-D"])
            .arg(self.data())
            .stdout(log.try_clone().map_err(failed("log file"))?)
            .stderr(log);
        match runner.run(&mut command).map_err(failed("initdb"))? {
            End::Exited(status) if status.success() => Ok(()),
            End::Exited(status) => {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                Err(Failure::Failed(format!("initdb: {status}\n{log}")))
            }
            End::Interrupted => Err(Failure::Interrupted),
        }
    }

    fn command(&self, port: u16) -> Result<Command, Failure> {
        let mut command = self.binary("postgres")?;
        command.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        let fsync = if self.purpose == Use::Test { "fsync=off" } else { "fsync=on" };
        for setting in ["unix_socket_directories=", "max_connections=400", fsync] {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    /// As `pg_ctl` does: the eighth line of the lock file says how far it is.
    fn is_ready(&self, _: u16) -> bool {
        fs::read_to_string(self.data().join("postmaster.pid"))
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

struct Nats {
    folder: PathBuf,
    /// Another program than the installed one.
    program: Option<PathBuf>,
}

impl Nats {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.join("nats"), program: None }
    }
}

/// A NATS server of another version; it stops when this is dropped.
pub(super) struct OtherNats {
    pub(super) url: String,
    /// Dropped before the folder.
    _daemon: Daemon,
    _folder: TempDir,
}

impl OtherNats {
    pub(super) fn start(program: &Path, runner: &mut Runner) -> Result<Self, Failure> {
        let folder = TempDir::with_prefix("chassis-nats-").map_err(failed("temporary folder"))?;
        let nats = Nats { program: Some(program.to_owned()), ..Nats::new(folder.path()) };
        let (daemon, url) = start(&nats, runner)?;
        Ok(Self { url, _daemon: daemon, _folder: folder })
    }
}

impl Server for Nats {
    fn name(&self) -> &'static str {
        "nats-server"
    }

    fn stop(&self) -> Stop {
        Stop::Terminate
    }

    fn prepare(&self, _: &mut Runner) -> Result<(), Failure> {
        fs::create_dir_all(&self.folder).map_err(failed("data folder"))
    }

    fn command(&self, port: u16) -> Result<Command, Failure> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => install::find(&Binary::NATS)
                .ok_or_else(|| Failure::Failed(Binary::NATS.advice()))?
                .join("nats-server"),
        };
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(&self.folder);
        Ok(command)
    }

    /// NATS greets every connection with a line that begins with INFO.
    fn is_ready(&self, port: u16) -> bool {
        let greets = || -> io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(REACH))?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting)?;
            Ok(&greeting == b"INFO")
        };
        greets().unwrap_or(false)
    }

    fn url(&self, port: u16) -> String {
        format!("nats://127.0.0.1:{port}")
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }
}

/// The address in this variable, checked to answer; `None` if it is not set.
fn given(variable: &str, default_port: u16) -> Result<Option<String>, Failure> {
    let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    // The address may hold a password, so only host and port are ever shown.
    let Some((host, port)) = host_and_port(&url, default_port) else {
        return Err(Failure::Failed(format!("{variable} is not of the form scheme://host:port")));
    };
    match reach(host, port) {
        Ok(()) => {
            eprintln!("    {variable}: {host}:{port} answers and is used");
            Ok(Some(url))
        }
        Err(error) => Err(Failure::Failed(format!(
            "{variable} names {host}:{port}, which does not answer ({error}); start it, or unset \
             {variable} to have a server started for the run"
        ))),
    }
}

fn reach(host: &str, port: u16) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, REACH) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Host and port of an URL with an authority; the host of an IPv6 address is
/// without its brackets.
fn host_and_port(url: &str, default_port: u16) -> Option<(&str, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None => default_port,
    };
    (!host.is_empty()).then_some((host, port))
}

/// User and group number of a name in the text of /etc/passwd.
fn account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entry.into_iter().find(|fields| fields.first() == Some(&name))?;
    Some((entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

pub(crate) fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_urls() {
        let cases = [
            ("postgres://u:p@db.local:6432/app?x=1", Some(("db.local", 6432))),
            ("postgres://db.local/app", Some(("db.local", 5432))),
            ("postgres://u:p%40@[::1]:7000/app", Some(("::1", 7000))),
            ("postgres://[::1]/app", Some(("::1", 5432))),
            ("nats://127.0.0.1:4222", Some(("127.0.0.1", 4222))),
            ("postgres:///app", None),
            ("localhost:5432", None),
            ("postgres://db:port/app", None),
        ];
        for (url, expected) in cases {
            assert_eq!(host_and_port(url, 5432), expected, "{url}");
        }
    }

    #[test]
    fn accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib:/bin/sh\n";
        assert_eq!(account(passwd, "postgres"), Some((101, 104)));
        assert_eq!(account(passwd, "post"), None);
        assert_eq!(account("postgres:x:many", "postgres"), None);
    }

    #[test]
    fn a_server_that_does_not_answer_is_an_error() {
        let port = free_port().unwrap();
        assert!(reach("127.0.0.1", port).is_err());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(reach("127.0.0.1", listener.local_addr().unwrap().port()).is_ok());
    }
}
