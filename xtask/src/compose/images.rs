//! Images for an engine without a registry: Debian's packages under the names that are asked for.
//!
//! An image of that name that the engine has already is left alone and used: on a machine that
//! can pull, the test runs on the real ones. What is made here carries a label, which images
//! that are built on it inherit: by it everything is found and removed at the end, and by a
//! later run what one that was killed has left. What takes minutes to make is kept: the archives
//! of the Debian roots in `target/compose`, and what is made of them alone as images named
//! `chassis-stand-in/…`, which no compose file asks for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::engine::{Engine, run};
use super::{Built, SERVICES};
use crate::process::Runner;
use crate::test::{self, Failure};

/// An image that is asked for.
pub(super) struct StandIn {
    /// The name under which it is asked for.
    name: &'static str,
    /// The stage that stands in for it; it is kept as `chassis-stand-in/STAGE`.
    stage: &'static str,
}

const SERVERS: [StandIn; 3] = [
    StandIn { name: "postgres:15", stage: "postgres" },
    StandIn { name: "nats:2.10-alpine", stage: "nats" },
    StandIn { name: "prom/prometheus:v2.53.4", stage: "prometheus" },
];
/// It holds the services as they were built, so there is nothing in it to be kept.
const COMPILER: &str = "rust:1.95-slim-bookworm";
/// On every image that is made here: [`KEPT`] or [`OF_A_RUN`].
const LABEL: &str = "chassis.stand-in";
const KEPT: &str = "root";
/// As in `stand_ins/rust.Dockerfile`.
const OF_A_RUN: &str = "run";
/// Which archive a root was made of.
const ARCHIVE: &str = "chassis.archive";
const PACKAGES: &str = "postgresql,prometheus,busybox-static,ca-certificates";

/// A Debian as an image: its name, its archive, and what is left out of it beside
/// [`NOT_NEEDED`].
struct Root {
    name: &'static str,
    archive: &'static str,
    without: &'static [&'static str],
}

const ROOTS: [Root; 2] = [
    Root { name: "chassis-stand-in/servers", archive: "servers.tar", without: &[] },
    Root {
        name: "chassis-stand-in/small",
        archive: "small.tar",
        without: &[
            "./usr/lib/postgresql",
            "./usr/share/postgresql",
            "./usr/bin/prometheus",
            "*/libicu*",
            "*/perl*",
        ],
    },
];
/// Two thirds of the packages: each step of a build has to go through them.
const NOT_NEEDED: [&str; 15] = [
    "./proc/*",
    "./sys/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/lib/postgresql/[0-9]*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "./usr/share/i18n/*",
    "./usr/share/javascript",
    "./usr/share/nodejs",
    "./usr/bin/promtool",
    // PostgreSQL compiles nothing where its compiler is not there.
    "*/libLLVM*",
    "*/llvmjit*",
    "./usr/lib/postgresql/*/lib/bitcode",
];

/// The stand-ins that the engine needs.
pub(super) fn missing(engine: &Engine) -> Vec<&'static str> {
    names().filter(|name| engine.docker(&["image", "inspect", name]).is_err()).collect()
}

fn names() -> impl Iterator<Item = &'static str> {
    SERVERS.iter().map(|each| each.name).chain([COMPILER])
}

/// Makes the archives of the roots, where they are not there from an earlier run.
pub(super) fn archives(root: &Path, runner: &mut Runner) -> Result<(), Failure> {
    let folder = root.join("target/compose");
    if ROOTS.iter().all(|each| folder.join(each.archive).exists()) {
        return Ok(());
    }
    debootstrap_is_there(runner)?;
    fs::create_dir_all(&folder).map_err(test::failed("folder of the roots"))?;
    let debian = folder.join("root");
    // What an interrupted run left is not a root.
    let _ = fs::remove_dir_all(&debian);
    println!("    making a Debian root, once: a minute or two");
    let log = folder.join("debootstrap.log");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite()?])
        .arg(&debian)
        .stdout(fs::File::create(&log).map_err(test::failed("log"))?);
    not_here(run(&mut debootstrap, "debootstrap", runner), &log.display().to_string())?;
    for Root { archive, without, .. } in &ROOTS {
        let part = folder.join(format!("{archive}.part"));
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&part).arg("-C").arg(&debian);
        tar.args(NOT_NEEDED.iter().chain(*without).map(|path| format!("--exclude={path}")));
        run(tar.arg("."), "tar", runner)?;
        fs::rename(&part, folder.join(archive)).map_err(test::failed("archive of a root"))?;
    }
    fs::remove_dir_all(&debian).map_err(test::failed("folder of the roots"))
}

/// Makes the stand-ins for `missing`.
pub(super) fn make(
    missing: &[&str],
    root: &Path,
    built: &Built,
    engine: &Engine,
    runner: &mut Runner,
) -> Result<(), Failure> {
    let folder = root.join("target/compose");
    for Root { name, archive, .. } in &ROOTS {
        import(name, &folder.join(archive), engine, runner)?;
    }
    let context = folder.join("stand-ins");
    fs::create_dir_all(&context).map_err(test::failed("context of the stand-ins"))?;
    let servers: Vec<_> = SERVERS.iter().filter(|each| missing.contains(&each.name)).collect();
    if !servers.is_empty() {
        write(&context, "Dockerfile", include_str!("stand_ins/Dockerfile"))?;
        write(&context, "postgres.sh", include_str!("stand_ins/postgres.sh"))?;
        // Debian's does not know `sync_interval` yet.
        let nats = test::recent_nats(root, runner)?;
        fs::copy(nats, context.join("nats-server")).map_err(test::failed("nats-server"))?;
    }
    for StandIn { name, stage } in servers {
        println!("    {name} of Debian's packages");
        let kept = format!("chassis-stand-in/{stage}");
        docker_build(&context, &["--target", stage, "--tag", &kept, "--tag", name], runner)?;
    }
    fs::remove_dir_all(&context).map_err(test::failed("context of the stand-ins"))?;
    if missing.contains(&COMPILER) {
        println!("    {COMPILER} with what is built");
        let built_into = context.join("built");
        fs::create_dir_all(&built_into).map_err(test::failed("context of the stand-ins"))?;
        write(&context, "Dockerfile", include_str!("stand_ins/rust.Dockerfile"))?;
        write(&context, "cargo.sh", include_str!("stand_ins/cargo.sh"))?;
        for service in SERVICES {
            let name = format!("shop-{service}");
            // As the Dockerfile has cargo do it.
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(built_into.join(&name)).arg(built.program(&name));
            run(&mut strip, "strip", runner)?;
        }
        docker_build(&context, &["--tag", COMPILER], runner)?;
        // It holds a copy of every service.
        fs::remove_dir_all(&context).map_err(test::failed("context of the stand-ins"))?;
    }
    // What the kept ones were before.
    for image in ours(engine, KEPT, &["--filter", "dangling=true"])? {
        let _ = engine.docker(&["image", "rm", &image]);
    }
    Ok(())
}

/// Makes an image of an archive, unless it is one of that very archive.
fn import(name: &str, archive: &Path, engine: &Engine, runner: &mut Runner) -> Result<(), Failure> {
    let data = fs::metadata(archive).map_err(test::failed("archive of a root"))?;
    let made = data.modified().map_err(test::failed("archive of a root"))?;
    let made = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    let which = format!("{made}-{}", data.len());
    let template = format!("{{{{index .Config.Labels \"{ARCHIVE}\"}}}}");
    let there = engine.docker(&["image", "inspect", "--format", &template, name]);
    if there.is_ok_and(|there| there.trim() == which) {
        return Ok(());
    }
    let mut import = Command::new("docker");
    import.args(["import", "--change", &format!("LABEL {LABEL}={KEPT} {ARCHIVE}={which}")]);
    import.arg(archive).arg(name).stdout(Stdio::null());
    run(&mut import, "docker import", runner)
}

fn docker_build(context: &Path, args: &[&str], runner: &mut Runner) -> Result<(), Failure> {
    let mut command = Command::new("docker");
    command
        .args(["build", "--quiet"])
        .args(args)
        .arg(context)
        .env("DOCKER_BUILDKIT", "0")
        .stdout(Stdio::null())
        // It says that it is deprecated; the other one has to be pulled.
        .stderr(Stdio::null());
    run(&mut command, "docker build", runner)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    fs::write(folder.join(name), text).map_err(test::failed("context of the stand-ins"))
}

/// Takes the names from the stand-ins, and removes what holds services and what was built on
/// it, the stages of the shop's Dockerfile among it.
pub(super) fn remove(engine: &Engine) -> Result<(), Failure> {
    // An image goes before those that it was built on; what is gone with another one is gone.
    for filter in ["dangling=true", "dangling=false"] {
        for image in ours(engine, OF_A_RUN, &["--filter", filter])? {
            let _ = engine.docker(&["image", "rm", "--force", &image]);
        }
    }
    for image in ours(engine, KEPT, &[])?.iter().filter(|image| is_asked_for(image)) {
        engine.docker(&["image", "rm", image])?;
    }
    let mut left = ours(engine, OF_A_RUN, &["--all"])?;
    left.extend(ours(engine, KEPT, &[])?.into_iter().filter(|image| is_asked_for(image)));
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("images are left behind: {}", left.join(" "))))
}

/// Whether it has a name that somebody's compose file may mean something else by.
fn is_asked_for(image: &str) -> bool {
    names().any(|name| name == image)
}

/// Tags, and the ids of what has none.
fn ours(engine: &Engine, which: &str, filter: &[&str]) -> Result<Vec<String>, Failure> {
    let label = format!("label={LABEL}={which}");
    let format = "{{if eq .Tag \"<none>\"}}{{.ID}}{{else}}{{.Repository}}:{{.Tag}}{{end}}";
    let args = [&["images", "--filter", &label, "--format", format], filter].concat();
    let mut images: Vec<_> = engine.docker(&args)?.lines().map(str::to_owned).collect();
    images.sort();
    images.dedup();
    Ok(images)
}

fn debootstrap_is_there(runner: &mut Runner) -> Result<(), Failure> {
    const PROGRAM: &str = "debootstrap";
    let has = || Path::new("/usr/sbin").join(PROGRAM).is_file();
    if !has() && test::install::may_install() {
        not_here(test::install::install(&[PROGRAM], runner), "apt-get, above, says why")?;
    }
    if has() { Ok(()) } else { not_here(Err(Failure::Failed(PROGRAM.to_owned())), "not there") }
}

/// What failed is not the shop's fault: this machine has not what the images are made of.
fn not_here(outcome: Result<(), Failure>, why: &str) -> Result<(), Failure> {
    let names = names().collect::<Vec<_>>().join(", ");
    outcome.map_err(|failure| match failure {
        Failure::Failed(line) => Failure::Missing(format!(
            "the engine lacks images, and what they can be made with cannot be had: {line} \
             ({why}); pull {names}, or, as root on Debian, install debootstrap"
        )),
        other => other,
    })
}

/// The suite of this machine: what was built here must find its C library there.
fn suite() -> Result<String, Failure> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| Failure::Missing("this machine is not Debian: pull the images".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_not_a_failure_of_the_shop() {
        let refused = Err(Failure::Failed("`apt-get install`: exit status: 100".to_owned()));
        let Err(Failure::Missing(line)) = not_here(refused, "apt-get says why") else {
            panic!("a failure");
        };
        for word in ["exit status: 100", "apt-get says why", "pull postgres:15", "debootstrap"] {
            assert!(line.contains(word), "{line}");
        }
        assert_eq!(not_here(Err(Failure::Interrupted), ""), Err(Failure::Interrupted));
    }

    #[test]
    fn only_names_that_somebody_asks_for_are_taken_away() {
        assert!(is_asked_for("postgres:15") && is_asked_for(COMPILER));
        assert!(!is_asked_for("chassis-stand-in/postgres:latest"));
    }
}
