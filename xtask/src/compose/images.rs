//! Images for an engine without a registry: Debian's packages under the names that are asked for.
//!
//! An image of that name that the engine has already is left alone and used: on a machine that
//! can pull, the test runs on the real ones. What is made here carries a label, which images
//! that are built on it inherit: by it everything is found and removed at the end, and by a
//! later run what one that was killed has left. Only the archives of the Debian roots, which
//! take minutes to make, are kept in `target/compose`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::engine::{Engine, run};
use super::{Built, SERVICES};
use crate::process::Runner;
use crate::test::{self, Failure};

/// Image name, and the stage of `stand_ins/Dockerfile` that stands in for it.
const STAND_INS: [(&str, &str); 4] = [
    ("postgres:15", "postgres"),
    ("nats:2.10-alpine", "nats"),
    ("prom/prometheus:v2.53.4", "prometheus"),
    ("rust:1.95-slim-bookworm", "rust"),
];
/// On every image that is made here.
const LABEL: &str = "chassis.stand-in";
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

const FILES: [(&str, &str); 3] = [
    ("Dockerfile", include_str!("stand_ins/Dockerfile")),
    ("postgres.sh", include_str!("stand_ins/postgres.sh")),
    ("cargo.sh", include_str!("stand_ins/cargo.sh")),
];

/// The stand-ins that the engine needs, in order.
pub(super) fn missing(engine: &Engine) -> Vec<&'static str> {
    let names = STAND_INS.into_iter().map(|(name, _)| name);
    names.filter(|name| engine.docker(&["image", "inspect", name]).is_err()).collect()
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
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite()?])
        .arg(&debian)
        .stdout(fs::File::create(folder.join("debootstrap.log")).map_err(test::failed("log"))?);
    run(&mut debootstrap, "debootstrap", runner)?;
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
    runner: &mut Runner,
) -> Result<(), Failure> {
    let folder = root.join("target/compose");
    for Root { name, archive, .. } in &ROOTS {
        let mut import = Command::new("docker");
        import.args(["import", "--change", &format!("LABEL {LABEL}=root")]);
        import.arg(folder.join(archive)).arg(name).stdout(Stdio::null());
        run(&mut import, "docker import", runner)?;
    }
    let context = folder.join("stand-ins");
    prepare(root, &context, built, runner)?;
    for (name, stage) in STAND_INS.into_iter().filter(|(name, _)| missing.contains(name)) {
        println!("    making {name} of Debian's packages");
        let mut command = Command::new("docker");
        command
            .args(["build", "--quiet", "--target", stage, "--tag", name])
            .arg(&context)
            .env("DOCKER_BUILDKIT", "0")
            .stdout(Stdio::null())
            // It says that it is deprecated; the other one has to be pulled.
            .stderr(Stdio::null());
        run(&mut command, "docker build", runner)?;
    }
    // It holds a copy of every service.
    fs::remove_dir_all(&context).map_err(test::failed("context of the stand-ins"))
}

/// Removes what was made here and what was built on it, the stages of the shop's Dockerfile
/// among it.
pub(super) fn remove(engine: &Engine) -> Result<(), Failure> {
    // An image goes before those that it was built on; what is gone with another one is gone.
    for filter in ["dangling=true", "dangling=false"] {
        for image in ours(engine, &["--filter", filter])? {
            let _ = engine.docker(&["image", "rm", "--force", &image]);
        }
    }
    let left = ours(engine, &["--all"])?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("images are left behind: {}", left.join(" "))))
}

/// Tags, and the ids of what has none.
fn ours(engine: &Engine, filter: &[&str]) -> Result<Vec<String>, Failure> {
    let label = format!("label={LABEL}");
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
        test::install::install(&[PROGRAM], runner)?;
    }
    if has() {
        return Ok(());
    }
    let names: Vec<&str> = STAND_INS.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    Err(Failure::Failed(format!(
        "the engine lacks images: pull {names}; or, as root on Debian, install {PROGRAM}"
    )))
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
fn prepare(root: &Path, context: &Path, built: &Built, runner: &mut Runner) -> Result<(), Failure> {
    let into = context.join("built");
    fs::create_dir_all(&into).map_err(test::failed("context of the stand-ins"))?;
    for (name, text) in FILES {
        fs::write(context.join(name), text).map_err(test::failed("context of the stand-ins"))?;
    }
    for service in SERVICES {
        let name = format!("shop-{service}");
        // As the Dockerfile has cargo do it.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(into.join(&name)).arg(built.program(&name));
        run(&mut strip, "strip", runner)?;
    }
    // Debian's does not know `sync_interval` yet.
    let nats = test::recent_nats(root, runner)?;
    fs::copy(nats, context.join("nats-server")).map_err(test::failed("nats-server"))?;
    Ok(())
}
