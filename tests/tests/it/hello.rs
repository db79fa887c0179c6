//! The service `hello_service` as a process: started, asked, told to stop, its output read.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use chassis_test::eventually;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::wire;

/// How long anything may take that should happen soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The program with nothing of this process's environment.
pub(crate) fn command(vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hello_service"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    for (name, value) in vars {
        command.env(name, value);
    }
    command
}

/// Runs it to its end.
pub(crate) async fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = command(vars);
    command.args(args);
    tokio::time::timeout(SOON, command.output()).await.expect("it should have ended").unwrap()
}

/// Runs it to its end with a standard output of one's own.
pub(crate) async fn run_into(stdout: Stdio, args: &[&str]) -> Output {
    let mut command = command(&[]);
    let child = command.args(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await;
    output.expect("it should have ended").unwrap()
}

/// A running service; killed when it is dropped.
pub(crate) struct Hello {
    child: Child,
    folder: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The program with sockets as systemd hands them over: descriptor 3 and 4, of these names.
/// A shell puts them there and says whose they are, since a process knows its own number only.
pub(crate) fn handed_over(
    sockets: [std::os::fd::OwnedFd; 2],
    names: &str,
    vars: &[(&str, &str)],
) -> Command {
    let [third, fourth] = sockets;
    let program = env!("CARGO_BIN_EXE_hello_service");
    let place = "exec 3<&0 4>&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", place, program]).env_clear().kill_on_drop(true);
    command.env("LISTEN_FDNAMES", names).envs(vars.iter().copied());
    command.stdin(third).stdout(fourth);
    command
}

impl Hello {
    /// Starts it on free ports, its standard output in a file.
    pub(crate) async fn start(vars: &[(&str, &str)]) -> Hello {
        let folder = tempfile::tempdir().unwrap();
        let stdout = File::create(folder.path().join("stdout")).unwrap();
        Hello::start_into(folder, stdout.into(), vars).await
    }

    /// Starts it with a standard output of one's own.
    pub(crate) async fn start_with_stdout(stdout: Stdio) -> Hello {
        Hello::start_into(tempfile::tempdir().unwrap(), stdout, &[]).await
    }

    /// Starts it with a standard output that nobody reads any more.
    pub(crate) async fn start_without_reader() -> Hello {
        let mut hello = Hello::start_with_stdout(Stdio::piped()).await;
        drop(hello.child.stdout.take());
        hello
    }

    /// Starts it with so many open files at most.
    pub(crate) async fn start_with_files(files: u32) -> Hello {
        let folder = tempfile::tempdir().unwrap();
        let stdout = File::create(folder.path().join("stdout")).unwrap();
        let mut shell = Command::new("/bin/sh");
        let limited = format!("ulimit -n {files}; exec \"$0\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_hello_service")]);
        shell.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        Hello::start_by(shell, folder, stdout.into(), &[]).await
    }

    async fn start_into(folder: TempDir, stdout: Stdio, vars: &[(&str, &str)]) -> Hello {
        Hello::start_by(command(&[]), folder, stdout, vars).await
    }

    async fn start_by(
        mut command: Command,
        folder: TempDir,
        stdout: Stdio,
        vars: &[(&str, &str)],
    ) -> Hello {
        let report = folder.path().join("report");
        let stderr = File::create(folder.path().join("stderr")).unwrap();
        let mut child = command
            .envs([("HTTP__PORT", "0"), ("ADMIN__PORT", "0")])
            .envs(vars.iter().copied())
            .env("PROBE__REPORT", &report)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut addresses = eventually("the service serves", SOON, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", text(&folder.path().join("stderr")));
            }
            let text = std::fs::read_to_string(&report).ok()?;
            let address = |protocol: &str| {
                let of = |line: &str| line.strip_prefix(protocol)?.trim().parse().ok();
                text.lines().find_map(of)
            };
            Some(["http", "admin"].map(|protocol| address(protocol).unwrap()))
        })
        .await
        .into_iter();
        let (http, admin) = (addresses.next().unwrap(), addresses.next().unwrap());
        let hello = Hello { child, folder, http, admin };
        hello.until_admin_says("/readyz", 200).await;
        hello
    }

    /// Waits until a path of the admin port gives this status.
    pub(crate) async fn until_admin_says(&self, path: &str, status: u16) -> wire::Answer {
        eventually(&format!("{path} says {status}"), SOON, async || {
            wire::try_get(self.admin, path, &[]).await.filter(|answer| answer.status == status)
        })
        .await
    }

    /// Waits until this many HTTP calls are in flight.
    pub(crate) async fn until_in_flight(&self, count: u64) {
        eventually("the call is in flight", SOON, async || {
            let drain = wire::get(self.admin, "/drain", &[]).await.json();
            (drain["in_flight"]["http"] == count).then_some(())
        })
        .await;
    }

    /// What it has in memory, in kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let id = self.child.id().expect("it still runs");
        let status = text(Path::new(&format!("/proc/{id}/status")));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it still runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(SOON, self.child.wait()).await.expect("it should have ended").unwrap()
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// What it has logged.
    pub(crate) fn stdout(&self) -> String {
        text(&self.file("stdout"))
    }

    /// What it has said on standard error.
    pub(crate) fn stderr(&self) -> String {
        text(&self.file("stderr"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
