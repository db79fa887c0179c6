//! Which crate may use which.
//!
//! A crate uses only crates on lower floors, so there is no cycle to draw and a
//! reader can learn the house from the ground up. Optional dependencies count:
//! a feature is not a way around a wall. Development dependencies count too, but
//! for `chassis-test`, which exists for them, and for the crate itself, by which
//! its tests turn on its features.

use std::path::Path;

use super::Finding;
use super::manifest::{Dependency, Kind, Package, Workspace};

/// The crate that is a development dependency and nothing else.
const DEV_ONLY: &str = "chassis-test";

/// Third-party families that a crate must not know; a family is the name itself
/// and every name that continues it with a dash.
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "chassis-core",
        &["axum", "hyper", "tonic", "sqlx", "async-nats"],
        "the core knows no transport, database or broker; the code belongs on a higher floor",
    ),
    (
        "chassis-resilience",
        &["axum", "http", "hyper", "tonic"],
        "resilience wraps any tower service; classify by a closure that the transport gives",
    ),
];

/// What a crate may use of such a family all the same, and only for what is said here.
const BUT: &[(&str, &str)] = &[
    // TLS to a collector: telemetry that leaves belongs to the core, with its exporter.
    ("chassis-core", "hyper-rustls"),
];

pub(super) fn check(workspace: &Workspace, findings: &mut Vec<Finding>) {
    let crates =
        || workspace.packages.iter().filter(|package| package.manifest.starts_with("crates"));
    for package in crates() {
        match workspace.floors.get(&package.name) {
            Some(&(Some(floor), _)) => check_crate(workspace, package, floor, findings),
            // Told once, below.
            Some(&(None, _)) => {}
            None => findings.push(Finding {
                file: package.manifest.clone(),
                line: 1,
                rule: "floors",
                what: format!(
                    "`{}` has no floor; add it to [workspace.metadata.floors] in Cargo.toml",
                    package.name
                ),
            }),
        }
    }
    for (name, &(floor, line)) in &workspace.floors {
        let what = if !crates().any(|package| package.name == *name) {
            format!("no crate of the name `{name}` in crates/; delete the line")
        } else if floor.is_none() {
            format!("the floor of `{name}` is not a number")
        } else {
            continue;
        };
        findings.push(Finding {
            file: Path::new("Cargo.toml").to_path_buf(),
            line,
            rule: "floors",
            what,
        });
    }
}

fn check_crate(workspace: &Workspace, package: &Package, floor: i64, findings: &mut Vec<Finding>) {
    for dependency in &package.dependencies {
        for (rule, what) in problems(workspace, package, floor, dependency) {
            findings.push(Finding {
                file: package.manifest.clone(),
                line: dependency.line,
                rule,
                what,
            });
        }
    }
}

fn problems(
    workspace: &Workspace,
    package: &Package,
    floor: i64,
    dependency: &Dependency,
) -> Vec<(&'static str, String)> {
    let user = &package.name;
    let used = &dependency.name;
    let mut problems = Vec::new();
    if package.is_itself(dependency) {
        return problems;
    }
    if used == DEV_ONLY {
        if dependency.kind != Kind::Dev {
            let what = format!("`{used}` is for tests; move it to [dev-dependencies]");
            problems.push(("dev-only", what));
        }
    } else if let Some(&(other, _)) = workspace.floors.get(used) {
        if let Some(other) = other.filter(|&other| other >= floor) {
            problems.push((
                "floors",
                format!(
                    "`{user}` (floor {floor}) uses `{used}` (floor {other}); only lower floors \
                     may be used: move the shared part down or the user up"
                ),
            ));
        }
        if user == "chassis-resilience" {
            let what =
                format!("`{user}` uses `{used}`; it must be useful without any chassis crate");
            problems.push(("never", what));
        }
    } else if workspace.package(used).is_some_and(|other| !other.manifest.starts_with("crates")) {
        let what = format!(
            "a crate uses `{used}`, which stands above all crates; turn the dependency round"
        );
        problems.push(("floors", what));
    }
    for (name, families, why) in NEVER {
        let family = families.iter().find(|family| {
            used.strip_prefix(**family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        if user == name && family.is_some() && !BUT.contains(&(user, used)) {
            problems.push(("never", format!("`{user}` must not use `{used}`: {why}")));
        }
    }
    problems
}
