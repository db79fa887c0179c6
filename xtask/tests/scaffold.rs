//! A service made by `cargo xtask new` stands outside this repository, passes its own tests and
//! answers.
//!
//! It is built into this workspace's target folder with this workspace's profile, so that the
//! dependencies need no second build: that leaves the crates themselves, about a minute of one core.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn cargo(folder: &Path, target: &Path, what: &str) {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .args([what, "--offline"])
        .args(["--config", "profile.dev.debug='line-tables-only'"])
        .args(["--config", "profile.dev.package.'*'.debug=false"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = || format!("{}{said}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "cargo {what}: {}", failed());
    // A warning of the template is inherited by everybody who uses it.
    assert!(!said.contains("warning:"), "cargo {what}: {}", failed());
}

/// A running program; killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The address in the log line that says where this protocol is served.
fn address(log: &[String], protocol: &str) -> String {
    let wanted = format!("\"protocol\":\"{protocol}\"");
    let line = log.iter().find(|line| line.contains(&wanted)).unwrap();
    line.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn http(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_new_service_passes_its_tests_and_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_path_buf();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("made-by-a-test");
    xtask::scaffold::generate(root, "made-by-a-test", &folder).unwrap();
    cargo(&folder, &target, "test");
    cargo(&folder, &target, "build");

    let complaints = temporary.path().join("stderr");
    let mut service = Running(
        Command::new(target.join("debug/made-by-a-test"))
            .current_dir(temporary.path())
            .env_clear()
            .envs([("HTTP__PORT", "0"), ("ADMIN__PORT", "0")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).unwrap())
            .spawn()
            .unwrap(),
    );
    let (sender, lines) = channel();
    let output = BufReader::new(service.0.stdout.take().unwrap());
    thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let mut log = Vec::new();
    while !log.iter().any(|line: &String| line.contains("service is up")) {
        match lines.recv_timeout(SOON) {
            Ok(line) => log.push(line),
            Err(_) => panic!("{log:?} {}", std::fs::read_to_string(&complaints).unwrap()),
        }
    }

    let ready = http(&address(&log, "admin"), "GET /readyz", "");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"status\":\"up\""), "{ready}");
    let added = http(&address(&log, "http"), "POST /items", r#"{"name":"lamp"}"#);
    assert!(added.starts_with("HTTP/1.1 201") && added.contains("\"lamp\""), "{added}");

    let pid = Pid::from_raw(i32::try_from(service.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
}
