//! What is done to the shop, and what must hold afterwards.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::{Engine, run};
use super::load::{Failures, Load};
use super::times::{Times, now};
use super::{Built, SERVICES, figures};
use crate::process::Runner;
use crate::test::Failure;

/// Longer than the leases of relays and sagas, which are five seconds.
const LONGER_THAN_LEASES: Duration = Duration::from_secs(12);
/// How long a service may take to be well again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Customers have begun to order, and some orders are under way.
const WARM: Duration = Duration::from_secs(1);
/// So few customers leave a machine of two cores air for the restarts.
const FEW: usize = 3;
/// How long a container has for its end, as in the compose file.
const STOPS_WITHIN: &str = "30";

/// How much of each log is shown when a scene fails.
const LOG_LINES: usize = 8;
const LOG_WIDTH: usize = 500;

/// What each step may take on a machine that is ten times slower than a developer's.
mod within {
    use std::time::Duration;

    const MINUTE: u64 = 60;
    pub(super) const IMAGES: Duration = Duration::from_secs(5 * MINUTE);
    pub(super) const UP: Duration = Duration::from_secs(4 * MINUTE);
    pub(super) const JOURNEY: Duration = Duration::from_secs(2 * MINUTE);
    pub(super) const FIGURES: Duration = Duration::from_secs(4 * MINUTE);
    pub(super) const KILLS: Duration = Duration::from_secs(5 * MINUTE);
    pub(super) const FAULT: Duration = Duration::from_secs(3 * MINUTE);
    pub(super) const TWO_OF_EACH: Duration = Duration::from_secs(4 * MINUTE);
    pub(super) const RESTARTS: Duration = Duration::from_secs(8 * MINUTE);
    pub(super) const STOP: Duration = Duration::from_secs(2 * MINUTE);
}

struct Stage<'a> {
    engine: &'a Engine,
    runner: &'a mut Runner,
    /// The program `shop`.
    shop: PathBuf,
    /// The gateway, as host:port.
    gateway: String,
}

/// Plays all scenes on a shop that is built and brought up here.
pub(super) fn play(
    root: &Path,
    built: &Built,
    engine: &Engine,
    runner: &mut Runner,
    times: &Times,
) -> Result<(), Failure> {
    times.step("the images of the services, by their Dockerfile", within::IMAGES, || {
        engine.compose(&["build", "--quiet"], runner)?;
        if built.optimised { figures::sizes(engine) } else { Ok(()) }
    })?;
    let mut stage = Stage { engine, runner, shop: built.program("shop"), gateway: String::new() };
    let outcome = stage.scenes(built, times);
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
            for line in lines {
                println!("{}", line.chars().take(LOG_WIDTH).collect::<String>());
            }
        }
    }
}

impl Stage<'_> {
    fn scenes(&mut self, built: &Built, times: &Times) -> Result<(), Failure> {
        times.step("up", within::UP, || self.up())?;
        times.step("the customers' journey", within::JOURNEY, || self.shop(&["smoke"]))?;
        if built.optimised {
            times.step("orders per second, and memory", within::FIGURES, || {
                let apart = figures::orders(&self.shop, &self.gateway, self.runner)?;
                println!("    seven containers:  {apart}");
                figures::memory(self.engine)?;
                let together = figures::in_one_process(&self.shop, self.runner)?;
                println!("    one process:       {together}");
                Ok(())
            })?;
        }
        times.step("each service is killed under load", within::KILLS, || self.kills())?;
        let name = "one is paused for longer than its leases, under load";
        times.step(name, within::FAULT, || self.pause("ordering"))?;
        let name = "one is cut off from its network and comes back, under load";
        times.step(name, within::FAULT, || self.cut_off("ordering"))?;
        times.step("two of each", within::TWO_OF_EACH, || self.two_of_each())?;
        let name = "each is restarted under load, and no request fails";
        times.step(name, within::RESTARTS, || self.restarts())?;
        let name = "the customers' journey once more";
        times.step(name, within::JOURNEY, || self.shop(&["smoke"]))?;
        times.step("everything is told to stop, and drains", within::STOP, || self.stop())
    }

    fn up(&mut self) -> Result<(), Failure> {
        let started = now();
        self.engine.compose(&["up", "--detach", "--no-build"], self.runner)?;
        self.gateway = format!("127.0.0.1:{}", self.engine.port("gateway", "8080")?);
        self.first_order()?;
        self.say("the first order ended", started);
        for service in SERVICES {
            self.well(service)?;
        }
        self.say("everything was healthy", started);
        self.scraped()?;
        self.say("Prometheus saw all of them", started);
        Ok(())
    }

    fn say(&self, what: &str, started: Instant) {
        println!("    {what} {:.1} s after `up`", started.elapsed().as_secs_f64());
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

    /// Orders in the background, some of which are under way when this returns.
    fn load(&mut self, failures: Failures) -> Result<Load, Failure> {
        let load = Load::start(&self.shop, &self.gateway, FEW, failures)?;
        self.rest(WARM)?;
        Ok(load)
    }

    /// Waits until every container of the service is healthy.
    fn well(&mut self, service: &str) -> Result<(), Failure> {
        self.until(&format!("{service} to be healthy"), |engine| {
            let containers = engine.containers(service)?;
            let mut healthy = !containers.is_empty();
            for container in &containers {
                healthy &= is_healthy(engine, container)?;
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

    /// One after the other, while the same customers order.
    fn kills(&mut self) -> Result<(), Failure> {
        let load = self.load(Failures::Count)?;
        for service in SERVICES {
            let started = now();
            self.kill(service)?;
            println!("    {service:<13} is back after {:.1} s", started.elapsed().as_secs_f64());
        }
        println!("    {}", load.end(self.runner)?);
        Ok(())
    }

    /// SIGKILL to the process itself: to the engine that is a crash, and it starts it again.
    fn kill(&mut self, service: &str) -> Result<(), Failure> {
        let container = self.only(service)?;
        let starts = self.engine.inspect(&container, "{{.RestartCount}}")?;
        let pid = self.engine.inspect(&container, "{{.State.Pid}}")?;
        run(Command::new("kill").args(["-KILL", &pid]), "kill", self.runner)?;
        self.until(&format!("{service} to be started again"), |engine| {
            Ok(engine.inspect(&container, "{{.RestartCount}}")? != starts)
        })?;
        self.well(service)
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
        let load = self.load(Failures::Count)?;
        let container = self.only(service)?;
        self.until(&format!("{service} to be frozen"), |engine| {
            // On a busy machine with cgroups of version 1, runc gives up after some tries, for
            // example while a health check begins, and says that it may be asked again.
            match engine.docker(&["pause", &container]) {
                Err(Failure::Failed(line)) if line.contains("unable to freeze") => Ok(false),
                other => other.map(|_| true),
            }
        })?;
        let rested = self.rest(LONGER_THAN_LEASES);
        self.engine.docker(&["unpause", &container])?;
        rested?;
        self.well(service)?;
        println!("    {service:<13} {}", load.end(self.runner)?);
        Ok(())
    }

    fn cut_off(&mut self, service: &str) -> Result<(), Failure> {
        let load = self.load(Failures::Count)?;
        let container = self.only(service)?;
        let network = format!("{}_inside", super::PROJECT);
        self.engine.docker(&["network", "disconnect", &network, &container])?;
        let rested = self.rest(LONGER_THAN_LEASES);
        self.engine.docker(&["network", "connect", "--alias", service, &network, &container])?;
        rested?;
        self.well(service)?;
        println!("    {service:<13} {}", load.end(self.runner)?);
        Ok(())
    }

    /// Two containers of each service.
    ///
    /// The gateway has one published port and so one container: while it is gone nobody
    /// listens there, which no retry behind it can bridge. Customers come back with the same
    /// key, and what it had accepted was answered.
    fn two_of_each(&mut self) -> Result<(), Failure> {
        let behind: Vec<&str> = SERVICES.into_iter().filter(|name| *name != "gateway").collect();
        let scale: Vec<String> = behind.iter().map(|name| format!("{name}=2")).collect();
        let mut args = vec!["up", "--detach", "--no-build", "--no-recreate"];
        for each in &scale {
            args.extend(["--scale", each]);
        }
        self.engine.compose(&args, self.runner)?;
        SERVICES.into_iter().try_for_each(|service| self.well(service))
    }

    /// One container after the other is stopped by SIGTERM and started, and no request fails.
    fn restarts(&mut self) -> Result<(), Failure> {
        // All of them are tried: which ones fail says more than that one does.
        let mut broken = Vec::new();
        for service in SERVICES {
            let containers = self.engine.containers(service)?;
            let load = self.load(Failures::Refuse)?;
            for container in containers {
                self.engine.docker(&["restart", "--time", STOPS_WITHIN, &container])?;
                self.until(&format!("{service} to be healthy"), |engine| {
                    is_healthy(engine, &container)
                })?;
            }
            let (line, held) = match load.end(self.runner) {
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

fn is_healthy(engine: &Engine, container: &str) -> Result<bool, Failure> {
    Ok(engine.inspect(container, "{{.State.Health.Status}}")? == "healthy")
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
