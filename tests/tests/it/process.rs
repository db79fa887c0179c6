//! A service as an operator meets it: options, settings, exit codes, signals, log lines.
//!
//! Each test runs the real program. What it promises here is what a shell script, a
//! container image and an orchestrator are written against.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    process::Output,
};

use chassis_test::eventually;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    hello::{Hello, SOON, run, run_into},
    wire,
};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The only line on standard error, from a run that ended with this code.
fn complaint(output: &Output, code: i32) -> String {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "one line, not {text:?}");
    text
}

/// A port that is taken for as long as the listener lives.
fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The first half of a request that is in flight until [`SECOND`] follows.
const FIRST: &str = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello";
const SECOND: &[u8] = b"world";

#[tokio::test]
async fn help_lists_options_and_settings() {
    // Help shows the defaults, also to somebody whose settings are wrong.
    let output = run(&["--help"], &[("HTTP__PROT", "1")]).await;
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with(concat!("hello ", env!("CARGO_PKG_VERSION"))), "{text}");
    for promised in ["--check", "--print-config", "--version", "HTTP__PORT", "8080", "_FILE"] {
        assert!(text.contains(promised), "{promised} is not in {text}");
    }
}

#[tokio::test]
async fn version_is_name_and_version() {
    let output = run(&["--version"], &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), concat!("hello ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn print_config_shows_origins_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.toml");
    std::fs::write(&file, "[http]\nbody_limit = 4096\n").unwrap();
    let args = ["--config", file.to_str().unwrap(), "--print-config"];
    let vars = [("HTTP__PORT", "8123"), ("PROBE__PASSWORD", "hunter2")];
    let output = run(&args, &vars).await;
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line = |key: &str| {
        text.lines()
            .find(|line| line.split_whitespace().next() == Some(key))
            .unwrap_or_else(|| panic!("no {key} in {text}"))
    };
    assert!(line("http.port").ends_with("= 8123  # environment variable HTTP__PORT"), "{text}");
    let from_file = format!("= 4096  # {}", file.display());
    assert!(line("http.body_limit").ends_with(&from_file), "{text}");
    assert!(line("admin.port").ends_with("= 9090  # default"), "{text}");
    assert!(line("probe.password").contains("***"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn check_prints_the_plan_and_binds_nothing() {
    // Binding would fail: the ports are taken.
    let ((_http, http), (_admin, admin)) = (taken(), taken());
    let (http, admin) = (http.port().to_string(), admin.port().to_string());
    let output = run(&["--check"], &[("HTTP__PORT", &http), ("ADMIN__PORT", &admin)]).await;
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let components: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("component"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(components, ["admin", "http", "report"], "{text}");
    assert!(text.contains(&format!("127.0.0.1:{http}")), "{text}");
}

#[tokio::test]
async fn wrong_options_and_settings_end_with_64_and_say_what_is_right() {
    let output = run(&["--prot", "1"], &[]).await;
    let said = complaint(&output, 64);
    assert!(said.contains("`--prot`") && said.contains("--help"), "{said}");

    let said = complaint(&run(&[], &[("HTTP__PROT", "1")]).await, 64);
    assert!(said.contains("`http.prot`") && said.contains("HTTP__PROT"), "{said}");
    assert!(said.contains("`http.port`"), "the nearest known name: {said}");

    let said = complaint(&run(&[], &[("HTTP__PORT", "abc")]).await, 64);
    assert!(said.contains("`http.port`") && said.contains("HTTP__PORT"), "{said}");

    let said = complaint(&run(&["--config", "/nowhere/hello.toml"], &[]).await, 64);
    assert!(said.contains("/nowhere/hello.toml"), "{said}");
}

#[tokio::test]
async fn a_taken_port_ends_with_1_and_says_what_to_do() {
    let (_listener, address) = taken();
    let port = address.port().to_string();
    for (taken, free) in [("HTTP__PORT", "ADMIN__PORT"), ("ADMIN__PORT", "HTTP__PORT")] {
        let output = run(&[], &[(taken, &port), (free, "0")]).await;
        let said = complaint(&output, 1);
        assert!(said.contains(&address.to_string()) && said.contains(taken), "{said}");
    }
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_ends_with_0() {
    let mut hello = Hello::start(&[]).await;
    let mut slow = wire::open(hello.http, FIRST).await;
    hello.until_in_flight(1).await;

    hello.signal(Signal::TERM);
    // The admin port outlives the rest, so that the drain can be watched.
    let health = hello.until_admin_says("/readyz", 503).await;
    assert_eq!(health.json()["status"], "draining", "{health:?}");
    let drain = wire::get(hello.admin, "/drain", &[]).await.json();
    assert_eq!(drain["in_flight"]["http"], 1, "{drain}");
    assert_eq!(wire::get(hello.admin, "/livez", &[]).await.status, 200);
    eventually("nothing new begins", SOON, async || TcpStream::connect(hello.http).await.err())
        .await;

    slow.write_all(SECOND).await.unwrap();
    let answer = wire::read(&mut slow).await.expect("the call in flight is answered");
    assert_eq!((answer.status, &*answer.body), (200, "helloworld"));
    assert_eq!(hello.ended().await.code(), Some(0), "{}", hello.stderr());
    assert_eq!(hello.stderr(), "");
}

#[tokio::test]
async fn ctrl_c_is_a_sigterm() {
    let mut hello = Hello::start(&[]).await;
    hello.signal(Signal::INT);
    assert_eq!(hello.ended().await.code(), Some(0), "{}", hello.stderr());
}

#[tokio::test]
async fn a_second_signal_ends_at_once_with_130() {
    let mut hello = Hello::start(&[("SHUTDOWN__TIMEOUT", "10m")]).await;
    let slow = wire::open(hello.http, FIRST).await;
    hello.until_in_flight(1).await;
    hello.signal(Signal::TERM);
    hello.until_admin_says("/readyz", 503).await;
    hello.signal(Signal::TERM);
    assert_eq!(hello.ended().await.code(), Some(130));
    drop(slow);
}

#[tokio::test]
async fn a_call_that_never_ends_is_cut_at_the_drain_timeout() {
    let mut hello = Hello::start(&[("SHUTDOWN__TIMEOUT", "200ms")]).await;
    let mut slow = wire::open(hello.http, FIRST).await;
    hello.until_in_flight(1).await;
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
    assert!(wire::read(&mut slow).await.is_none());
}

#[tokio::test]
async fn the_admin_port_answers() {
    let mut hello = Hello::start(&[]).await;
    wire::get(hello.http, "/orders/7", &[]).await;
    for path in ["/livez", "/readyz", "/startupz", "/metrics", "/info", "/plan", "/drain"] {
        let answer = wire::get(hello.admin, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let info = wire::get(hello.admin, "/info", &[]).await.json();
    assert_eq!(info["name"], "hello");
    let listeners = info["listeners"].as_array().unwrap();
    assert!(listeners.iter().any(|l| l["address"] == hello.http.to_string()), "{info}");
    let metrics = wire::get(hello.admin, "/metrics", &[]).await.body;
    let count = metrics
        .lines()
        .find(|line| {
            line.starts_with("http_server_request_duration_seconds_count")
                && line.contains("/orders/{id}")
        })
        .unwrap_or_else(|| panic!("the route is not in {metrics}"));
    assert!(count.ends_with(" 1"), "{count}");
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
    // What is on the admin port is not on the public one.
    assert_eq!(wire::get(hello.http, "/metrics", &[]).await.status, 404);
    hello.stop().await;
}

#[tokio::test]
async fn a_panic_is_one_failed_call_and_no_more() {
    let mut hello = Hello::start(&[]).await;
    let answer = wire::get(hello.http, "/panic", &[("x-request-id", "panic-1")]).await;
    assert_eq!(answer.status, 500);
    let problem = answer.problem();
    assert_eq!(
        (&problem["request_id"], &problem["reason"]),
        (&"panic-1".into(), &"INTERNAL".into())
    );
    assert!(!answer.body.contains("boom"), "the cause is not for the caller: {answer:?}");
    assert_eq!(wire::get(hello.http, "/orders/7", &[]).await.status, 200);
    assert_eq!(hello.stop().await.code(), Some(0));
    let lines = log_lines(&hello.stdout());
    let blamed =
        lines.iter().find(|line| line["request_id"] == "panic-1" && line["level"] == "ERROR");
    let blamed = blamed.unwrap_or_else(|| panic!("no line for the panic in {lines:?}"));
    assert!(blamed.to_string().contains("boom goes the handler"), "{blamed}");
}

/// The trace of a caller.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Every line of a log, each of which must be a JSON object with what every line has.
fn log_lines(text: &str) -> Vec<Value> {
    assert!(!text.is_empty(), "there is no log");
    let parse = |line: &str| -> Value {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message", "target", "service.name", "service.version"]
        {
            assert!(value[field].is_string(), "no {field} in {line}");
        }
        value
    };
    text.lines().map(parse).collect()
}

#[tokio::test]
async fn log_lines_are_json_and_carry_the_ids_of_their_call() {
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let mut hello = Hello::start(&[]).await;
    let headers = [("traceparent", &*parent), ("x-request-id", "request-7")];
    let answer = wire::get(hello.http, "/orders/7", &headers).await;
    assert_eq!(answer.json()["status"], "confirmed");
    assert_eq!(answer.header("x-request-id"), Some("request-7"));
    assert_eq!(hello.stop().await.code(), Some(0));

    let lines = log_lines(&hello.stdout());
    assert!(lines.iter().all(|line| line["service.name"] == "hello"), "{lines:?}");
    let of_call: Vec<_> = lines.iter().filter(|line| line["trace_id"] == TRACE).collect();
    let messages: Vec<_> = of_call.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages, ["shown", "GET /orders/7 200"], "its own line and the access log's");
    for line in of_call {
        assert_eq!(line["request_id"], "request-7", "{line}");
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16), "{line}");
        assert_ne!(line["span_id"], "b7ad6b7169203331", "its own span, not the caller's");
    }
}

#[tokio::test]
async fn the_readable_log_names_the_call_too() {
    let mut hello = Hello::start(&[("TELEMETRY__LOG_FORMAT", "text")]).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    wire::get(hello.http, "/orders/7", &[("traceparent", &*parent)]).await;
    assert_eq!(hello.stop().await.code(), Some(0));
    let log = hello.stdout();
    // The first digits are enough for a person who looks at one screen.
    let shown = log.lines().find(|line| line.contains("shown")).unwrap();
    assert!(shown.contains(&TRACE[..8]) && shown.contains("hello"), "{log}");
    assert!(!log.contains('\u{1b}'), "a file gets no colours: {log}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_under_the_log_stops_nobody() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut hello = Hello::start_with_stdout(full().into()).await;
    answers(&hello).await;
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_answer_that_cannot_be_printed_is_a_failure_and_no_panic() {
    for args in ["--help", "--version", "--print-config", "--check"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = run_into(full.into(), &[args]).await;
        let said = complaint(&output, 1);
        assert!(said.contains("standard output"), "{args}: {said}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nobody() {
    let mut hello = Hello::start_without_reader().await;
    answers(&hello).await;
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
}

#[tokio::test]
async fn a_collector_that_is_down_costs_nothing_but_its_spans() {
    let (listener, address) = taken();
    drop(listener);
    let endpoint = format!("http://{address}");
    let mut hello = Hello::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    answers(&hello).await;
    assert_eq!(hello.stop().await.code(), Some(0), "{}", hello.stderr());
}

/// More calls than any buffer of log lines between here and there has room for.
async fn answers(hello: &Hello) {
    for id in 0..500 {
        let answer = wire::get(hello.http, &format!("/orders/{id}"), &[]).await;
        assert_eq!(answer.json()["id"], id);
    }
}
