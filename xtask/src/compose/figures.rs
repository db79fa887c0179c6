//! What is measured: the size of images, memory, and orders per second beside one process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::SERVICES;
use super::engine::{Engine, PROJECT};
use super::load::{Background, Failures, Load};
use super::times::now;
use crate::process::Runner;
use crate::test::{self, Failure};

/// The aim for an image beyond its base, which is empty.
const AIM_IMAGE_MB: f64 = 40.0;
/// The aim for all services together, without the servers.
const AIM_MEMORY_MB: f64 = 150.0;
/// As many customers as saturate two cores, and some.
const MANY: usize = 8;
/// For how long they order.
const MEASURED: Duration = Duration::from_secs(10);
/// How long the shop in one process may take to open.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Prints the size of each image.
pub(super) fn sizes(engine: &Engine) -> Result<(), Failure> {
    for service in SERVICES {
        let image = format!("shop-{service}:{PROJECT}");
        let size = engine.docker(&["image", "inspect", "--format", "{{.Size}}", &image])?;
        let megabytes = size.trim().parse::<f64>().unwrap_or_default() / 1e6;
        println!("    {image:<34} {megabytes:>6.1} MB (aim: under {AIM_IMAGE_MB})");
    }
    Ok(())
}

/// Prints what each service takes of its memory limit.
pub(super) fn memory(engine: &Engine) -> Result<(), Failure> {
    let mut sum = 0.0;
    for service in SERVICES {
        for container in engine.containers(service)? {
            let template = "{{.MemUsage}}";
            let text =
                engine.docker(&["stats", "--no-stream", "--format", template, &container])?;
            let used = mebibytes(&text);
            println!("    {service:<13} {used:>6.1} MiB");
            sum += used;
        }
    }
    println!("    together      {sum:>6.1} MiB (aim: under {AIM_MEMORY_MB})");
    Ok(())
}

/// Orders for ten seconds; gives what came of it.
pub(super) fn orders(shop: &Path, gateway: &str, runner: &mut Runner) -> Result<String, Failure> {
    let load = Load::start(shop, gateway, MANY, Failures::Count)?;
    if runner.pause(MEASURED) {
        return Err(Failure::Interrupted);
    }
    load.end(runner)
}

/// The same on the shop in one process, with SQLite and the embedded broker.
pub(super) fn in_one_process(shop: &Path, runner: &mut Runner) -> Result<String, Failure> {
    let folder = tempfile::tempdir().map_err(test::failed("temporary folder"))?;
    let report = folder.path().join("report.json");
    let mut command = Command::new(shop);
    command.args(["--port", "0", "--data"]).arg(folder.path().join("data"));
    command.arg("--report").arg(&report);
    let log = std::fs::File::create(folder.path().join("log")).map_err(test::failed("log"))?;
    command.stdout(log.try_clone().map_err(test::failed("log"))?).stderr(log);
    let mut process = Background::start(&mut command)?;
    let started = now();
    let gateway = loop {
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        if let Some(address) = gateway_in(&text) {
            break address;
        }
        if started.elapsed() > OPENS_WITHIN || process.has_ended()? {
            return Err(Failure::Failed("the shop in one process does not open".to_owned()));
        }
        if runner.pause(PAUSE) {
            return Err(Failure::Interrupted);
        }
    };
    orders(shop, &gateway, runner)
}

/// The gateway's HTTP address in the shop's report.
fn gateway_in(report: &str) -> Option<String> {
    let (_, gateway) = report.split_once("\"gateway\"")?;
    let (_, http) = gateway.split_once("\"http\"")?;
    http.split('"').nth(1).map(str::to_owned)
}

/// The first figure of `12.3MiB / 64MiB`.
fn mebibytes(usage: &str) -> f64 {
    let used = usage.split('/').next().unwrap_or_default().trim();
    let digits = used.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let figure: f64 = digits.parse().unwrap_or_default();
    match &used[digits.len()..] {
        "GiB" => figure * 1024.0,
        "KiB" => figure / 1024.0,
        "B" => figure / (1024.0 * 1024.0),
        _ => figure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_s_figures_are_read() {
        for (usage, expected) in
            [("12.5MiB / 64MiB", 12.5), ("1GiB / 2GiB", 1024.0), ("512KiB / 64MiB", 0.5)]
        {
            assert!((mebibytes(usage) - expected).abs() < 1e-9, "{usage}");
        }
        let report = r#"{"services":{"gateway":{"admin":"127.0.0.1:1","http":"127.0.0.1:2"}}}"#;
        assert_eq!(gateway_in(report).as_deref(), Some("127.0.0.1:2"));
        assert_eq!(gateway_in(""), None);
    }
}
