//! `cargo xtask compose-test`: the compose file of the shop, run and broken.
//!
//! It runs the very file that a user runs, on an engine of this machine, and does to it what
//! the failure drills of the README speak of: containers killed, paused, cut off and restarted
//! under load. The load follows every order that was accepted to its end, so a step that holds
//! has lost nothing. Nothing of it leaves the networks that the run made, and nothing is left
//! behind.

mod engine;
mod figures;
mod images;
mod load;
mod scenes;
mod times;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use self::engine::{Engine, PROJECT, run as run_command};
use self::times::Times;
use crate::process::{self, Runner};
use crate::test::Failure;

const MINUTE: u64 = 60;
/// All steps together, but for the build: what hangs must not hold up whoever waits for the
/// rest of the tests.
const ALL: Duration = Duration::from_secs(20 * MINUTE);
/// What is there from an earlier run is removed first.
const REMOVAL: Duration = Duration::from_secs(4 * MINUTE);
const BUILD: Duration = Duration::from_secs(45 * MINUTE);
/// Debian's packages may come over a slow line.
const ARCHIVES: Duration = Duration::from_secs(15 * MINUTE);
const STAND_INS: Duration = Duration::from_secs(8 * MINUTE);

/// The services that have an image of their own.
const SERVICES: [&str; 7] =
    ["catalog", "inventory", "payment", "ordering", "shipping", "notification", "gateway"];

/// What the command line of `compose-test` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Optimised services: the figures mean something, and the build takes minutes.
    release: bool,
}

impl Options {
    /// Reads the options after `compose-test`.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        for &arg in args {
            match arg {
                "--release" => options.release = true,
                other => return Err(format!("unknown option `{other}` of `compose-test`")),
            }
        }
        Ok(options)
    }
}

/// The services as they were built, outside of any container.
struct Built {
    folder: PathBuf,
    /// Whether their figures say something.
    optimised: bool,
}

impl Built {
    fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Runs the test and gives the exit code: 0, 1, or 130 if interrupted.
pub fn run(root: &Path, options: Options) -> ExitCode {
    let outcome = Runner::install()
        .map_err(|error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}")))
        .and_then(|mut runner| test(root, options, &mut runner));
    match outcome {
        Ok(()) => {
            println!("the compose file holds");
            ExitCode::SUCCESS
        }
        Err(Failure::Failed(line) | Failure::Missing(line)) => failed(&line),
        Err(Failure::Interrupted) => {
            println!("interrupted; everything that was made is removed");
            ExitCode::from(130)
        }
    }
}

/// As a part of `cargo xtask test`: where no engine answers, that is one line.
pub(crate) fn part(root: &Path, runner: &mut Runner) -> Result<(), Failure> {
    match Engine::find(root) {
        Ok(_) => test(root, Options::default(), runner),
        Err(line) => {
            println!("    left out: {line}");
            Ok(())
        }
    }
}

fn test(root: &Path, options: Options, runner: &mut Runner) -> Result<(), Failure> {
    let mut engine = Engine::find(root).map_err(Failure::Failed)?;
    everything(root, options, &mut engine, runner)
}

fn failed(line: &str) -> ExitCode {
    println!("FAILED: {line}");
    ExitCode::FAILURE
}

fn everything(
    root: &Path,
    options: Options,
    engine: &mut Engine,
    runner: &mut Runner,
) -> Result<(), Failure> {
    for (name, port) in [("GATEWAY_PORT", free_port()?), ("PROMETHEUS_PORT", free_port()?)] {
        engine.set(name, port.to_string());
    }
    engine.set("SHOP_TAG", PROJECT.to_owned());
    let times = Times::new(ALL, runner.interrupt());
    let outcome = steps(root, options, engine, runner, &times);
    let removed = times.step("removing everything", REMOVAL, || remove(engine));
    times.print();
    if let (Err(_), Err(Failure::Failed(line))) = (&outcome, &removed) {
        println!("{line}");
    }
    outcome.and(removed)
}

fn steps(
    root: &Path,
    options: Options,
    engine: &Engine,
    runner: &mut Runner,
    times: &Times,
) -> Result<(), Failure> {
    // What an earlier run that was killed left.
    times.step("what the engine has", REMOVAL, || remove(engine))?;
    let missing = images::missing(engine);
    if !missing.is_empty() {
        // Before the build: what cannot be had shows in seconds.
        times.step("Debian's packages", ARCHIVES, || images::archives(root, runner))?;
    }
    let built = times.aside("building the services", BUILD, || build(root, options, runner))?;
    if !missing.is_empty() {
        times.step("images in place of those that are missing", STAND_INS, || {
            images::make(&missing, root, &built, engine, runner)
        })?;
    }
    scenes::play(root, &built, engine, runner, times)
}

/// Builds the services and the program `shop` with the cargo of this machine.
fn build(root: &Path, options: Options, runner: &mut Runner) -> Result<Built, Failure> {
    let mut build = process::cargo();
    // What `cargo build -p shop` has built is built: its services depend on nothing else.
    build.args(["build", "--locked", "--bins", "-p", "shop", "-p", "shop-*"]).current_dir(root);
    let folder = if options.release {
        build.args(["--profile", "quick-release"]);
        "quick-release"
    } else {
        "debug"
    };
    run_command(&mut build, "cargo build", runner)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(Built { folder: root.join(target).join(folder), optimised: options.release })
}

/// Removes containers, networks, volumes and images, and looks whether any is left.
fn remove(engine: &Engine) -> Result<(), Failure> {
    // What still runs is not needed any more; a paused one cannot be killed.
    for end in ["unpause", "kill"] {
        let _ = engine.compose_quietly(&[end]);
    }
    engine.compose_quietly(&["down", "--volumes", "--remove-orphans"])?;
    for service in SERVICES {
        // Not there is as good.
        let _ = engine.docker(&["image", "rm", "--force", &format!("shop-{service}:{PROJECT}")]);
    }
    images::remove(engine)?;
    let filter = format!("label=com.docker.compose.project={PROJECT}");
    for (what, args) in [
        ("containers", ["ps", "--all", "--quiet", "--filter"].as_slice()),
        ("networks", &["network", "ls", "--quiet", "--filter"]),
        ("volumes", &["volume", "ls", "--quiet", "--filter"]),
    ] {
        let left = engine.docker(&[args, &[&*filter]].concat())?;
        if !left.trim().is_empty() {
            return Err(Failure::Failed(format!("{what} are left behind: {}", left.trim())));
        }
    }
    Ok(())
}

fn free_port() -> Result<u16, Failure> {
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    address.map(|address| address.port()).map_err(crate::test::failed("free port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        assert_eq!(Options::parse(&[]), Ok(Options::default()));
        assert_eq!(Options::parse(&["--release"]), Ok(Options { release: true }));
        assert!(Options::parse(&["--fast"]).unwrap_err().contains("`--fast`"));
    }
}
