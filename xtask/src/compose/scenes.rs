//! What is done to the shop, and what must hold afterwards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SERVICES;
use super::engine::{Engine, run};
use crate::process::Runner;
use crate::test::{self, Failure};

/// Longer than the leases of relays and sagas, which are five seconds.
const LONGER_THAN_LEASES: Duration = Duration::from_secs(12);
/// How long a service may take to be well again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// The aim for an image beyond its base, which is empty.
const AIM_IMAGE_MB: f64 = 40.0;
/// The aim for all services together, without the servers.
const AIM_MEMORY_MB: f64 = 150.0;

struct Stage<'a> {
    engine: &'a Engine,
    runner: &'a mut Runner,
    /// The program `shop`, as built for release.
    shop: std::path::PathBuf,
    /// The gateway, as host:port.
    gateway: String,
}

/// Plays all scenes on a shop that is built and brought up here.
pub(super) fn play(root: &Path, engine: &Engine, runner: &mut Runner) -> Result<(), Failure> {
    println!("==> the images of the services, by their Dockerfile");
    engine.compose(&["build"], runner)?;
    sizes(engine)?;

    println!("==> up");
    let started = now();
    engine.compose(&["up", "--detach", "--no-build"], runner)?;
    let up = started.elapsed();
    let port = engine.compose_quietly(&["port", "gateway", "8080"])?;
    let port = port.trim().rsplit(':').next().unwrap_or_default().to_owned();
    let mut stage = Stage {
        engine,
        runner,
        shop: root.join("target/release/shop"),
        gateway: format!("127.0.0.1:{port}"),
    };
    for service in SERVICES {
        stage.well(service)?;
    }
    let first = now();
    stage.first_order()?;
    println!(
        "    up in {:.1} s, the first order confirmed {:.1} s later",
        up.as_secs_f64(),
        first.elapsed().as_secs_f64()
    );
    println!("==> the customers' journey");
    stage.shop(&["smoke"])?;

    println!("==> orders per second, and memory");
    let apart = stage.load(10, false)?.wait()?;
    println!("    seven containers:  {apart}");
    memory(engine)?;
    println!("    one process:       {}", one_process(&mut stage)?);

    println!("==> each service is killed under load");
    for service in SERVICES {
        stage.kill(service)?;
    }
    println!("==> one is paused for longer than its leases, under load");
    stage.pause("ordering")?;
    println!("==> one is cut off from its network and comes back, under load");
    stage.cut_off("ordering")?;
    println!("==> each service is restarted under load, two of each");
    stage.rolling_restart()?;
    println!("==> the customers' journey once more");
    stage.shop(&["smoke"])
}

impl Stage<'_> {
    /// Runs `shop VERB --gateway …` to its end.
    fn shop(&mut self, args: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.shop);
        command.args(args).args(["--gateway", &self.gateway]);
        run(&mut command, &format!("shop {}", args.join(" ")), self.runner)
    }

    fn first_order(&mut self) -> Result<(), Failure> {
        let mut command = Command::new(&self.shop);
        command.args(["load", "--orders", "1", "--customers", "1", "--gateway", &self.gateway]);
        run(command.stdout(Stdio::null()), "shop load", self.runner)
    }

    /// Orders in the background. `faults` says that answers may be failures, as they are while
    /// the only instance of a service is down; what was accepted must end all the same.
    fn load(&self, seconds: u64, faults: bool) -> Result<Background, Failure> {
        load(&self.shop, &self.gateway, seconds, faults)
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
        let load = self.load(4, true)?;
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

    fn pause(&mut self, service: &str) -> Result<(), Failure> {
        let load = self.load(15, true)?;
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
        let load = self.load(15, true)?;
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

    /// Two of each, one after the other stopped by SIGTERM and started. The gateway has one
    /// published port and so one container; customers that find its door shut come back, and
    /// what it had accepted was answered.
    ///
    /// No request should fail. Some do: an address that Docker's DNS still gives out for a
    /// container that is gone swallows packets, and a call that meets it is lost to its
    /// timeout. So failures are printed and not refused; orders must end all the same.
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
        for service in SERVICES {
            let load = self.load(10, true)?;
            for container in self.engine.containers(service)? {
                self.rest(Duration::from_secs(1))?;
                self.engine.docker(&["restart", "--time", "30", &container])?;
                self.until(&format!("{service} to be healthy"), |engine| {
                    Ok(engine.inspect(&container, "{{.State.Health.Status}}")? == "healthy")
                })?;
            }
            println!("    {service:<13} {}", load.wait()?);
        }
        Ok(())
    }
}

/// A `shop`, or a `shop load`, in the background; killed when it is dropped.
struct Background(Option<Child>);

fn load(shop: &Path, gateway: &str, seconds: u64, faults: bool) -> Result<Background, Failure> {
    let mut command = Command::new(shop);
    command.args(["load", "--gateway", gateway, "--seconds", &seconds.to_string()]);
    if faults {
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
    load(&stage.shop, &gateway, 10, false)?.wait()
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
