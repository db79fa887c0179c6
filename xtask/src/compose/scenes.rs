//! What is done to the shop, and what must hold afterwards.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{Engine, run};
use super::{Built, SERVICES};
use crate::process::Runner;
use crate::test::{self, Failure};

/// Longer than the leases of relays and sagas, which are five seconds.
const LONGER_THAN_LEASES: Duration = Duration::from_secs(12);
/// How long a service may take to be well again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// How much of each log is shown when a scene fails.
const LOG_LINES: usize = 30;

/// The aim for an image beyond its base, which is empty.
const AIM_IMAGE_MB: f64 = 40.0;
/// The aim for all services together, without the servers.
const AIM_MEMORY_MB: f64 = 150.0;

struct Stage<'a> {
    engine: &'a Engine,
    runner: &'a mut Runner,
    /// The program `shop`.
    shop: std::path::PathBuf,
    /// The gateway, as host:port.
    gateway: String,
}

/// Plays all scenes on a shop that is built and brought up here.
pub(super) fn play(
    root: &Path,
    built: &Built,
    engine: &Engine,
    runner: &mut Runner,
) -> Result<(), Failure> {
    println!("==> the images of the services, by their Dockerfile");
    engine.compose(&["build", "--quiet"], runner)?;
    if built.optimised {
        sizes(engine)?;
    }

    println!("==> up");
    let started = now();
    engine.compose(&["up", "--detach", "--no-build"], runner)?;
    let port = engine.port("gateway", "8080")?;
    let mut stage =
        Stage { engine, runner, shop: built.program("shop"), gateway: format!("127.0.0.1:{port}") };
    let outcome = stage.scenes(built, started);
    if matches!(outcome, Err(Failure::Failed(_))) {
        tell(engine, &root.join("target/compose/logs"));
    }
    outcome
}

/// Keeps what everybody said, for whoever has to find out why a scene failed, and shows what
/// sounds wrong.
fn tell(engine: &Engine, folder: &Path) {
    if let Ok(states) = engine.compose_quietly(&["ps"]) {
        println!("{states}");
    }
    for service in SERVICES.into_iter().chain(["nats", "postgres"]) {
        for (index, container) in engine.containers(service).unwrap_or_default().iter().enumerate()
        {
            let log = engine.logs(container).unwrap_or_default();
            let file = folder.join(format!("{service}-{index}.log"));
            match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, &log)) {
                Ok(()) => println!("--- {}", file.display()),
                Err(error) => println!("--- {}: {error}", file.display()),
            }
            let loud = |line: &&str| {
                ["\"level\":\"WARN\"", "\"level\":\"ERROR\""]
                    .iter()
                    .any(|level| line.contains(level))
            };
            let mut lines: Vec<&str> = log.lines().rev().filter(loud).take(LOG_LINES).collect();
            lines.reverse();
            lines.iter().for_each(|line| println!("{line}"));
        }
    }
}

impl Stage<'_> {
    fn scenes(&mut self, built: &Built, started: Instant) -> Result<(), Failure> {
        self.first_order()?;
        println!("    the first order ended {:.1} s after `up`", started.elapsed().as_secs_f64());
        for service in SERVICES {
            self.well(service)?;
        }
        println!("    everything was healthy {:.1} s after `up`", started.elapsed().as_secs_f64());

        self.scraped()?;
        println!("    Prometheus sees all of them");

        println!("==> the customers' journey");
        self.shop(&["smoke"])?;

        if built.optimised {
            println!("==> orders per second, and memory");
            let apart = self.load(10, MANY, Failures::Count)?.wait()?;
            println!("    seven containers:  {apart}");
            memory(self.engine)?;
            println!("    one process:       {}", one_process(self)?);
        }

        println!("==> each service is killed under load");
        for service in SERVICES {
            self.kill(service)?;
        }
        println!("==> one is paused for longer than its leases, under load");
        self.pause("ordering")?;
        println!("==> one is cut off from its network and comes back, under load");
        self.cut_off("ordering")?;
        println!("==> each service is restarted under load, two of each");
        self.rolling_restart()?;
        println!("==> the customers' journey once more");
        self.shop(&["smoke"])?;
        println!("==> everything is told to stop, and drains");
        self.stop()
    }

    /// Runs `shop VERB --gateway …` to its end.
    fn shop(&mut self, args: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.shop);
        command.args(args).args(["--gateway", &self.gateway]);
        run(&mut command, &format!("shop {}", args.join(" ")), self.runner)
    }

    fn first_order(&mut self) -> Result<(), Failure> {
        let mut command = Command::new(&self.shop);
        command.args(["load", "--orders", "1", "--customers", "1", "--faults"]);
        command.args(["--gateway", &self.gateway]).stdout(Stdio::null());
        run(&mut command, "shop load", self.runner)
    }

    /// Orders in the background.
    fn load(
        &self,
        seconds: u64,
        customers: usize,
        failures: Failures,
    ) -> Result<Background, Failure> {
        load(&self.shop, &self.gateway, seconds, customers, failures)
    }

    /// Waits until every container of the service is healthy.
    fn well(&mut self, service: &str) -> Result<(), Failure> {
        self.until(&format!("{service} to be healthy"), |engine| {
            let containers = engine.containers(service)?;
            let mut healthy = !containers.is_empty();
            for container in &containers {
                healthy &= engine.inspect(container, "{{.State.Health.Status}}")? == "healthy";
            }
            Ok(healthy)
        })
    }

    /// Waits until Prometheus has got the metrics of every service.
    fn scraped(&mut self) -> Result<(), Failure> {
        let port = self.engine.port("prometheus", "9090")?;
        let all = format!("\"{}\"]", SERVICES.len());
        self.until("Prometheus to see every service", |_| {
            // Not up yet is not yet all.
            let answer = get(port, "/api/v1/query?query=count(up%7Bjob%3D%22shop%22%7D%3D%3D1)");
            Ok(answer.is_ok_and(|answer| answer.contains(&all)))
        })
    }

    fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&Engine) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let started = now();
        while !holds(self.engine)? {
            if started.elapsed() > RECOVERS_WITHIN {
                return Err(Failure::Failed(format!("waited {RECOVERS_WITHIN:?} for {what}")));
            }
            self.rest(PAUSE)?;
        }
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> Result<(), Failure> {
        if self.runner.pause(time) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn only(&self, service: &str) -> Result<String, Failure> {
        self.engine
            .containers(service)?
            .pop()
            .ok_or_else(|| Failure::Failed(format!("{service} has no container")))
    }

    /// SIGKILL to the process itself: to the engine that is a crash, and it starts it again.
    fn kill(&mut self, service: &str) -> Result<(), Failure> {
        let load = self.load(4, FEW, Failures::Count)?;
        self.rest(Duration::from_secs(1))?;
        let container = self.only(service)?;
        let pid = self.engine.inspect(&container, "{{.State.Pid}}")?;
        run(Command::new("kill").args(["-KILL", &pid]), "kill", self.runner)?;
        self.until(&format!("{service} to be started again"), |engine| {
            Ok(engine.inspect(&container, "{{.RestartCount}}")? != "0")
        })?;
        self.well(service)?;
        println!("    {service:<13} {}", load.wait()?);
        Ok(())
    }

    /// SIGTERM to all: none has to be killed, and none fails on its way out.
    fn stop(&mut self) -> Result<(), Failure> {
        let mut containers = Vec::new();
        for service in SERVICES {
            containers.extend(self.engine.containers(service)?.into_iter().map(|id| (service, id)));
        }
        self.engine.compose(&["stop"], self.runner)?;
        for (service, container) in containers {
            let code = self.engine.inspect(&container, "{{.State.ExitCode}}")?;
            if code != "0" {
                return Err(Failure::Failed(format!("{service} was stopped with {code}")));
            }
        }
        Ok(())
    }

    fn pause(&mut self, service: &str) -> Result<(), Failure> {
        let load = self.load(15, FEW, Failures::Count)?;
        let container = self.only(service)?;
        self.engine.docker(&["pause", &container])?;
        let rested = self.rest(LONGER_THAN_LEASES);
        self.engine.docker(&["unpause", &container])?;
        rested?;
        self.well(service)?;
        println!("    {service:<13} {}", load.wait()?);
        Ok(())
    }

    fn cut_off(&mut self, service: &str) -> Result<(), Failure> {
        let load = self.load(15, FEW, Failures::Count)?;
        let container = self.only(service)?;
        let network = format!("{}_inside", super::PROJECT);
        self.engine.docker(&["network", "disconnect", &network, &container])?;
        let rested = self.rest(LONGER_THAN_LEASES);
        self.engine.docker(&["network", "connect", "--alias", service, &network, &container])?;
        rested?;
        self.well(service)?;
        println!("    {service:<13} {}", load.wait()?);
        Ok(())
    }

    /// Two of each, one after the other stopped by SIGTERM and started, and no request fails.
    ///
    /// The gateway has one published port and so one container: while it is gone nobody
    /// listens there, which no retry behind it can bridge. Customers come back with the same
    /// key, and what it had accepted was answered.
    fn rolling_restart(&mut self) -> Result<(), Failure> {
        let behind: Vec<&str> = SERVICES.into_iter().filter(|name| *name != "gateway").collect();
        let scale: Vec<String> = behind.iter().map(|name| format!("{name}=2")).collect();
        let mut args = vec!["up", "--detach", "--no-build", "--no-recreate"];
        for each in &scale {
            args.extend(["--scale", each]);
        }
        self.engine.compose(&args, self.runner)?;
        for service in SERVICES {
            self.well(service)?;
        }
        // All of them are tried: which ones fail says more than that one does.
        let mut broken = Vec::new();
        for service in SERVICES {
            let containers = self.engine.containers(service)?;
            let load = self.load(8 * containers.len() as u64, FEW, Failures::Refuse)?;
            for container in containers {
                self.rest(Duration::from_secs(1))?;
                self.engine.docker(&["restart", "--time", "30", &container])?;
                self.until(&format!("{service} to be healthy"), |engine| {
                    Ok(engine.inspect(&container, "{{.State.Health.Status}}")? == "healthy")
                })?;
            }
            let (line, held) = match load.wait() {
                Ok(line) => {
                    let stayed = service == "gateway" || line.contains("\"came_back\":0,");
                    (line, stayed)
                }
                Err(Failure::Failed(line)) => (line, false),
                Err(other) => return Err(other),
            };
            println!("    {service:<13} {line}");
            if !held {
                broken.push(service);
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "requests failed while these restarted: {}",
            broken.join(", ")
        )))
    }
}

/// What a request that failed is to a load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failures {
    /// A figure, as while the only instance of a service is down. What was accepted must end.
    Count,
    /// The end of the test.
    Refuse,
}

/// Customers who order at the same time: as many as saturate two cores, and some.
const MANY: usize = 8;
const FEW: usize = 3;

/// A `shop`, or a `shop load`, in the background; killed when it is dropped.
struct Background(Option<Child>);

fn load(
    shop: &Path,
    gateway: &str,
    seconds: u64,
    customers: usize,
    failures: Failures,
) -> Result<Background, Failure> {
    let mut command = Command::new(shop);
    command.args(["load", "--gateway", gateway, "--seconds", &seconds.to_string()]);
    command.args(["--customers", &customers.to_string()]);
    if failures == Failures::Count {
        command.arg("--faults");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.map(|child| Background(Some(child))).map_err(test::failed("shop load"))
}

impl Background {
    /// Waits for its end; gives its one line.
    fn wait(mut self) -> Result<String, Failure> {
        let Some(child) = self.0.take() else { return Ok(String::new()) };
        let output = child.wait_with_output().map_err(test::failed("shop load"))?;
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(line)
        } else {
            Err(Failure::Failed(format!("`shop load`: {}: {line}", output.status)))
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same load on the shop in one process, with SQLite and the embedded broker.
fn one_process(stage: &mut Stage<'_>) -> Result<String, Failure> {
    let folder = tempfile::tempdir().map_err(test::failed("temporary folder"))?;
    let report = folder.path().join("report.json");
    let mut command = Command::new(&stage.shop);
    command.args(["--port", "0", "--data"]).arg(folder.path().join("data"));
    command.arg("--report").arg(&report).stdin(Stdio::null());
    let log = std::fs::File::create(folder.path().join("log")).map_err(test::failed("log"))?;
    command.stdout(log.try_clone().map_err(test::failed("log"))?).stderr(log);
    let mut shop = Background(Some(command.spawn().map_err(test::failed("shop"))?));
    let started = now();
    let gateway = loop {
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        if let Some(address) = gateway_in(&text) {
            break address;
        }
        let ended = shop.0.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if started.elapsed() > RECOVERS_WITHIN || ended.is_some() {
            return Err(Failure::Failed("the shop in one process does not open".to_owned()));
        }
        stage.rest(PAUSE)?;
    };
    load(&stage.shop, &gateway, 10, MANY, Failures::Count)?.wait()
}

/// The gateway's HTTP address in the shop's report.
fn gateway_in(report: &str) -> Option<String> {
    let (_, gateway) = report.split_once("\"gateway\"")?;
    let (_, http) = gateway.split_once("\"http\"")?;
    http.split('"').nth(1).map(str::to_owned)
}

fn sizes(engine: &Engine) -> Result<(), Failure> {
    for service in SERVICES {
        let image = format!("shop-{service}:{}", super::PROJECT);
        let size = engine.docker(&["image", "inspect", "--format", "{{.Size}}", &image])?;
        let megabytes = size.trim().parse::<f64>().unwrap_or_default() / 1e6;
        println!("    {image:<34} {megabytes:>6.1} MB (aim: under {AIM_IMAGE_MB})");
    }
    Ok(())
}

fn memory(engine: &Engine) -> Result<(), Failure> {
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

/// The whole answer to a GET on this machine.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(RECOVERS_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
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

#[expect(
    clippy::disallowed_methods,
    reason = "the time that a person waited; no test pauses this clock"
)]
fn now() -> Instant {
    Instant::now()
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
