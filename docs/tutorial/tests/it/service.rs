//! A step as a process: started on free ports, asked, told to stop.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use chassis::Error;
use chassis::discovery::{Discovery, DiscoveryConfig};
use chassis::http::Client;
use chassis_test::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long anything may take that should happen soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running step; killed when it is dropped.
pub(crate) struct Service {
    child: Child,
    folder: TempDir,
    http: Option<Client>,
    admin: Client,
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) address: Option<SocketAddr>,
}

impl Service {
    /// Starts this program in a folder of its own and waits until it is ready.
    pub(crate) async fn start(program: &str, vars: &[(&str, String)]) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let output = File::create(&log).unwrap();
        let mut child = Command::new(program)
            .current_dir(folder.path())
            .env_clear()
            .envs([("HTTP__PORT", "0"), ("GRPC__PORT", "0"), ("ADMIN__PORT", "0")])
            .envs(vars.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("the service is up", SOON, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", std::fs::read_to_string(&log).unwrap());
            }
            lines(&log).iter().any(|line| line["message"] == "service is up").then_some(())
        })
        .await;
        let address = |protocol: &str| listening(&log, protocol);
        Service {
            http: address("http").map(|address| client("http", address)),
            admin: client("admin", address("admin").unwrap()),
            grpc: address("grpc"),
            address: address("http"),
            child,
            folder,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let http = self.http.as_ref().expect("it serves HTTP");
        answer(http.get(path).send().await).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let http = self.http.as_ref().expect("it serves HTTP");
        answer(http.post(path).json(&body).send().await).await
    }

    /// What a path of the admin port says, as text.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let answer = self.admin.get(path).send().await.unwrap();
        String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap()
    }

    /// Waits until a GET answers 200 and gives what it says.
    pub(crate) async fn until_found(&self, path: &str) -> Value {
        self.until(path, |_| true).await
    }

    /// Waits until a GET answers 200 with what is wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{path} answers"), SOON, async || {
            let (status, body) = self.get(path).await;
            (status == 200 && wanted(&body)).then_some(body)
        })
        .await
    }

    /// Sends SIGTERM and waits for exit code 0; before that, each metric that it shows must be
    /// in the reference with its labels.
    pub(crate) async fn stop(mut self) {
        for series in self.admin("/metrics").await.lines().filter(|line| !line.starts_with('#')) {
            let undocumented = undocumented(series);
            assert!(undocumented.is_none(), "{undocumented:?} of {series}");
        }
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        let log = self.folder.path().join("log");
        let status = ended.expect("it should have ended").unwrap();
        assert_eq!(status.code(), Some(0), "{}", std::fs::read_to_string(log).unwrap());
    }
}

async fn answer(sent: Result<chassis::http::Response, Error>) -> (u16, Value) {
    let answer = sent.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// A client of whatever listens there.
fn client(protocol: &str, address: SocketAddr) -> Client {
    let mut config = DiscoveryConfig::default();
    let places = [("http".to_owned(), vec![address.to_string()])];
    config.services.insert(protocol.to_owned(), places.into());
    Client::new(protocol, &Discovery::new(&config).unwrap())
}

fn listening(log: &Path, protocol: &str) -> Option<SocketAddr> {
    let lines = lines(log);
    let line =
        lines.iter().find(|line| line["message"] == "listening" && line["protocol"] == protocol)?;
    line["address"].as_str()?.parse().ok()
}

/// The log lines written so far; the last one may still be on its way.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The name or label of a series that the reference does not have.
fn undocumented(series: &str) -> Option<String> {
    const REFERENCE: &str = include_str!("../../../src/reference/metrics.md");
    let series = series.rsplit_once(' ')?.0;
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
    let plain = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    let row =
        |name: &str| REFERENCE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let Some(row) = row(name).or_else(|| row(plain?)) else { return Some(name.to_owned()) };
    let labels = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
    labels
        .filter(|label| *label != "le")
        .find(|label| !row.contains(&format!("`{label}`")))
        .map(str::to_owned)
}
