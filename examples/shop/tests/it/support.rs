//! The program as a process: started, asked, told to stop, its output read.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use chassis_test::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long anything may take that should happen soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The program with nothing of this process's environment.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.env_clear().args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = command(args);
    let output = command.envs(vars.iter().copied()).output();
    tokio::time::timeout(SOON, output).await.expect("it should have ended").unwrap()
}

/// The only line of a run that ended with this code and has nothing else to say.
pub(crate) fn complaint(output: &Output, code: i32) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert_eq!(stdout, "", "nothing was begun");
    assert_eq!(stderr.lines().count(), 1, "one line, not {stderr:?}");
    assert!(stderr.starts_with("shop: "), "{stderr}");
    stderr
}

/// A running shop; killed when it is dropped.
pub(crate) struct Shop {
    child: Child,
    files: TempDir,
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Shop {
    /// Starts it on free ports and waits until it is open.
    pub(crate) async fn open(data: &Path) -> Shop {
        let files = tempfile::tempdir().unwrap();
        let stdout = File::create(files.path().join("stdout")).unwrap();
        Shop::open_into(data, files, stdout.into()).await
    }

    /// Starts it with a standard output that nobody reads any more.
    pub(crate) async fn open_without_reader(data: &Path) -> Shop {
        let files = tempfile::tempdir().unwrap();
        let mut shop = Shop::open_into(data, files, Stdio::piped()).await;
        drop(shop.child.stdout.take());
        shop
    }

    async fn open_into(data: &Path, files: TempDir, stdout: Stdio) -> Shop {
        let report = files.path().join("report.json");
        let stderr = File::create(files.path().join("stderr")).unwrap();
        let (data, at) = (data.to_str().unwrap(), report.to_str().unwrap());
        let mut child = command(&["--port", "0", "--data", data, "--report", at])
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let report: Value = eventually("the shop is open", SOON, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", text(&files.path().join("stderr")));
            }
            serde_json::from_slice(&std::fs::read(&report).ok()?).ok()
        })
        .await;
        let address = |protocol: &str| {
            report["services"]["gateway"][protocol].as_str().unwrap().parse().unwrap()
        };
        Shop { child, gateway: address("http"), admin: address("admin"), files }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it still runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(SOON, self.child.wait()).await.expect("it should have ended").unwrap()
    }

    /// What it has printed; log lines are among it.
    pub(crate) fn stdout(&self) -> String {
        text(&self.files.path().join("stdout"))
    }

    pub(crate) fn stderr(&self) -> String {
        text(&self.files.path().join("stderr"))
    }

    /// Waits until it has printed this.
    pub(crate) async fn until_says(&self, words: &str) {
        let what = format!("it says {words:?}");
        eventually(&what, SOON, async || self.stdout().contains(words).then_some(())).await;
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A request of which the second half is not sent yet.
pub(crate) struct HalfSent(TcpStream);

impl HalfSent {
    /// Sends the first half of an order to the gateway, and waits until it is in flight.
    pub(crate) async fn to(shop: &Shop) -> HalfSent {
        let mut stream = TcpStream::connect(shop.gateway).await.unwrap();
        let head = "POST /api/orders HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
                    content-type: application/json\r\ncontent-length: 2\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("the order is in flight", SOON, async || {
            let (_, drain) = get(shop.admin, "/drain").await;
            drain["in_flight"]["http"].as_u64().filter(|count| *count > 0)
        })
        .await;
        HalfSent(stream)
    }

    /// Sends the rest and gives the status of the answer.
    pub(crate) async fn finish(mut self) -> u16 {
        self.0.write_all(b"}").await.unwrap();
        answer(self.0).await.0
    }
}

/// Status and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(SOON, read).await.expect("no answer came").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}
