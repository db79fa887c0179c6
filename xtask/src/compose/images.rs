//! Images for an engine without a registry: Debian's packages under the names that are asked for.
//!
//! An image of that name that the engine has already is left alone and used: on a machine that
//! can pull, the test runs on the real ones. What is made here is removed at the end, but for
//! the root, which takes a minute or two and is kept in `target/compose`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::engine::{Engine, run};
use crate::process::Runner;
use crate::test::{self, Failure};

/// Image name, and the stage of `stand_ins/Dockerfile` that stands in for it.
const STAND_INS: [(&str, &str); 4] = [
    ("postgres:15", "postgres"),
    ("nats:2.10-alpine", "nats"),
    ("prom/prometheus:v2.53.4", "prometheus"),
    ("rust:1.95-slim-bookworm", "rust"),
];
const ROOT: &str = "chassis-stand-in/root";
const PACKAGES: &str = "postgresql,prometheus,busybox-static,ca-certificates";
const FILES: [(&str, &str); 3] = [
    ("Dockerfile", include_str!("stand_ins/Dockerfile")),
    ("postgres.sh", include_str!("stand_ins/postgres.sh")),
    ("cargo.sh", include_str!("stand_ins/cargo.sh")),
];

/// Makes what is missing; gives the names of the images that were made.
pub(super) fn ensure(
    engine: &Engine,
    root: &Path,
    services: &[&str],
    runner: &mut Runner,
) -> Result<Vec<&'static str>, Failure> {
    let missing: Vec<_> = STAND_INS
        .into_iter()
        .filter(|(name, _)| engine.docker(&["image", "inspect", name]).is_err())
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let folder = root.join("target/compose");
    debian(engine, &folder, runner)?;
    let context = folder.join("stand-ins");
    prepare(root, &context, services, runner)?;
    let mut made = Vec::new();
    for (name, stage) in missing {
        println!("    making {name} of Debian's packages");
        let mut command = Command::new("docker");
        command
            .args(["build", "--quiet", "--build-arg", &format!("ROOT={ROOT}")])
            .args(["--target", stage, "--tag", name])
            .arg(&context)
            .env("DOCKER_BUILDKIT", "0");
        run(&mut command, "docker build", runner)?;
        made.push(name);
    }
    Ok(made)
}

/// A minimal Debian with the servers in it, as an image.
fn debian(engine: &Engine, folder: &Path, runner: &mut Runner) -> Result<(), Failure> {
    if engine.docker(&["image", "inspect", ROOT]).is_ok() {
        return Ok(());
    }
    let archive = folder.join("root.tar");
    if !archive.exists() {
        fs::create_dir_all(folder).map_err(test::failed("folder of the root"))?;
        let root = folder.join("root");
        // What an interrupted run left is not a root.
        let _ = fs::remove_dir_all(&root);
        println!("    making a Debian root, once: a minute or two");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite()?])
            .arg(&root)
            .stdout(fs::File::create(folder.join("debootstrap.log")).map_err(test::failed("log"))?);
        run(&mut debootstrap, "debootstrap", runner)?;
        let part = folder.join("root.tar.part");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&part).arg("-C").arg(&root);
        tar.args(["--exclude=./var/cache/apt/archives/*", "--exclude=./var/lib/apt/lists/*"]);
        run(tar.args(["--exclude=./proc/*", "--exclude=./sys/*", "."]), "tar", runner)?;
        fs::rename(&part, &archive).map_err(test::failed("archive of the root"))?;
        fs::remove_dir_all(&root).map_err(test::failed("folder of the root"))?;
    }
    let mut import = Command::new("docker");
    import.arg("import").arg(&archive).arg(ROOT).stdout(std::process::Stdio::null());
    run(&mut import, "docker import", runner)
}

/// The suite of this machine: what was built here must find its C library there.
fn suite() -> Result<String, Failure> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| Failure::Failed("this machine is not Debian: pull the images".to_owned()))
}

/// Lays out the context of the stand-ins.
fn prepare(
    root: &Path,
    context: &Path,
    services: &[&str],
    runner: &mut Runner,
) -> Result<(), Failure> {
    let built = context.join("built");
    fs::create_dir_all(&built).map_err(test::failed("context of the stand-ins"))?;
    for (name, text) in FILES {
        fs::write(context.join(name), text).map_err(test::failed("context of the stand-ins"))?;
    }
    for service in services {
        let name = format!("shop-{service}");
        let from = root.join("target/release").join(&name);
        fs::copy(&from, built.join(&name)).map_err(test::failed("binary of a service"))?;
    }
    // Debian's does not know `sync_interval` yet.
    let nats = test::recent_nats(root, runner)?;
    fs::copy(nats, context.join("nats-server")).map_err(test::failed("nats-server"))?;
    Ok(())
}
