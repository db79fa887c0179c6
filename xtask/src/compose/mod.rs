//! `cargo xtask compose-test`: the compose file of the shop, run and broken.
//!
//! It runs the very file that a user runs, on an engine of this machine, and does to it what
//! the failure drills of the README speak of: containers killed, paused, cut off and restarted
//! under load. The load follows every order that was accepted to its end, so a step that holds
//! has lost nothing. Nothing of it leaves the networks that the run made, and nothing is left
//! behind.

mod engine;
mod images;
mod scenes;

use std::path::Path;
use std::process::{Command, ExitCode};

use self::engine::{Engine, PROJECT, run as run_command};
use crate::process::Runner;
use crate::test::Failure;

/// The services that have an image of their own.
const SERVICES: [&str; 7] =
    ["catalog", "inventory", "payment", "ordering", "shipping", "notification", "gateway"];

/// Runs the test and gives the exit code: 0, 1, or 130 if interrupted.
pub fn run(root: &Path) -> ExitCode {
    let outcome = Engine::find(root).map_err(Failure::Failed).and_then(|mut engine| {
        let mut runner = Runner::install()
            .map_err(|error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
        everything(root, &mut engine, &mut runner)
    });
    match outcome {
        Ok(()) => {
            println!("the compose file holds");
            ExitCode::SUCCESS
        }
        Err(Failure::Failed(line) | Failure::Missing(line)) => {
            println!("FAILED: {line}");
            ExitCode::FAILURE
        }
        Err(Failure::Interrupted) => {
            println!("interrupted; everything that was made is removed");
            ExitCode::from(130)
        }
    }
}

fn everything(root: &Path, engine: &mut Engine, runner: &mut Runner) -> Result<(), Failure> {
    println!("==> building the services");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--locked", "-p", "shop", "--bins"]).current_dir(root);
    for service in SERVICES {
        build.args(["-p", &format!("shop-{service}")]);
    }
    run_command(&mut build, "cargo build", runner)?;

    println!("==> images");
    for (name, port) in [("GATEWAY_PORT", free_port()?), ("PROMETHEUS_PORT", free_port()?)] {
        engine.set(name, port.to_string());
    }
    engine.set("SHOP_TAG", PROJECT.to_owned());
    // What an earlier run that was killed left.
    let _ = engine.compose_quietly(&["down", "--volumes", "--remove-orphans"]);
    let made = images::ensure(engine, root, &SERVICES, runner)?;
    let outcome = scenes::play(root, engine, runner);
    let removed = remove(engine, &made);
    outcome.and(removed)
}

/// Removes containers, networks, volumes and images, and looks whether any is left.
fn remove(engine: &Engine, made: &[&str]) -> Result<(), Failure> {
    println!("==> removing everything");
    engine.compose_quietly(&["down", "--volumes", "--remove-orphans", "--timeout", "30"])?;
    for service in SERVICES {
        engine.docker(&["image", "rm", "--force", &format!("shop-{service}:{PROJECT}")])?;
    }
    for image in made {
        engine.docker(&["image", "rm", "--force", image])?;
    }
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
