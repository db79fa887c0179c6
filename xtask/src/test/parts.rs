//! The parts of `cargo xtask test`, in the sequence in which they run.
//!
//! What is quick and says most stands first. Building is a part of its own, so
//! that the times of the others are the times of the tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::servers::Servers;
use crate::tidy::manifest::Workspace;
use crate::torture;

/// The feature that a package gives to tests which need servers.
const FEATURE: &str = "servers";

/// The server addresses, as services and tests read them.
const DATABASE: &str = "DATABASE_URL";
const BROKER: &str = "NATS_URL";

pub(super) struct Part {
    pub(super) name: &'static str,
    /// What it runs, for `--list` and the running line.
    pub(super) what: &'static str,
    pub(super) needs_servers: bool,
    pub(super) steps: fn(&Path, Option<&Servers>) -> Vec<Step>,
}

/// One thing that a part does.
pub(super) enum Step {
    Tidy,
    /// What needs NATS, on another version of it.
    OtherNats,
    /// The shop in containers. It cleans up by itself, so it is no command of its own that
    /// could be killed over that.
    Compose,
    Command {
        /// The command as a user would type it.
        shown: String,
        command: Box<Command>,
    },
}

pub(super) const PARTS: &[Part] = &[
    Part {
        name: "tidy",
        what: "the rules of the house",
        needs_servers: false,
        steps: |_, _| vec![Step::Tidy],
    },
    Part { name: "build", what: "every package and its tests", needs_servers: false, steps: build },
    Part {
        name: "test",
        what: "all tests that need no server",
        needs_servers: false,
        steps: |_, _| vec![cargo(&["test", "--workspace", "--no-fail-fast"])],
    },
    Part {
        name: "servers",
        what: "tests against PostgreSQL, NATS and etcd",
        needs_servers: true,
        steps: |root, servers| {
            server_tests(&Workspace::read(root))
                .map(|args| with_addresses(cargo(&args), servers))
                .into_iter()
                .collect()
        },
    },
    Part {
        name: "instructions",
        what: "what a request costs, in instructions",
        needs_servers: false,
        steps: |_, _| vec![own(&["bench", "servers", "http_instructions"])],
    },
    Part {
        name: "docs",
        what: "the book: links, anchors, pictures, every page in a browser",
        needs_servers: false,
        steps: |_, _| vec![own(&["docs", "--check"])],
    },
    Part {
        name: "scaffold",
        what: "a new service, made outside of the repository",
        needs_servers: false,
        steps: |_, _| {
            vec![cargo(&["test", "-p", "xtask", "--features", "scaffold", "--test", "scaffold"])]
        },
    },
    Part {
        name: "smoke",
        what: "the shop's journey with nothing installed",
        needs_servers: false,
        steps: |_, _| vec![cargo(&["run", "-p", "shop", "--", "smoke"])],
    },
    Part {
        name: "smoke-servers",
        what: "the shop's journey on PostgreSQL and NATS",
        needs_servers: true,
        steps: |_, servers| {
            let (database, broker) = addresses(servers);
            vec![smoke(database, broker)]
        },
    },
    Part {
        name: "servers-nats-2.15",
        what: "tests and journey once more, on NATS 2.15",
        needs_servers: true,
        steps: |_, _| vec![Step::OtherNats],
    },
    Part {
        name: "torture",
        what: "two minutes of faults on PostgreSQL and NATS, one on SQLite",
        // It starts its own, since it kills them; this makes sure that they are installed.
        needs_servers: true,
        steps: |_, _| {
            // The machine may have other work: what is late is not lost.
            let runs: [&[&str]; 2] = [
                &["--minutes", "2", "--seed", "7", "--within", "120"],
                &["--minutes", "1", "--sqlite", "--within", "120"],
            ];
            runs.into_iter().flat_map(torture::commands).map(|args| cargo(&args)).collect()
        },
    },
    Part {
        name: "compose",
        what: "the shop in containers, broken and restarted, where a Docker engine answers",
        needs_servers: false,
        steps: |_, _| vec![Step::Compose],
    },
];

fn build(root: &Path, _: Option<&Servers>) -> Vec<Step> {
    let mut steps = vec![cargo(&["test", "--workspace", "--no-run"])];
    if let Some(mut args) = server_tests(&Workspace::read(root)) {
        args.push("--no-run".to_owned());
        steps.push(cargo(&args));
    }
    steps.push(cargo(&["build", "-p", "shop"]));
    steps
}

/// The arguments that run every test which needs servers: the `[[test]]`
/// targets that require the feature, or, in a package that has the feature and
/// no such target, all of its tests.
fn server_tests(workspace: &Workspace) -> Option<Vec<String>> {
    let mut packages = Vec::new();
    let mut features = Vec::new();
    let mut targets = BTreeSet::new();
    let mut all = false;
    for package in workspace.packages.iter().filter(|p| p.features.iter().any(|f| f == FEATURE)) {
        packages.extend(["-p".to_owned(), package.name.clone()]);
        features.push(format!("{}/{FEATURE}", package.name));
        let gated = package.gated_tests.iter().filter(|t| t.features.iter().any(|f| f == FEATURE));
        let names: Vec<&str> = gated.map(|test| test.name.as_str()).collect();
        all |= names.is_empty();
        targets.extend(names);
    }
    if packages.is_empty() {
        return None;
    }
    let mut args = vec!["test".to_owned(), "--no-fail-fast".to_owned()];
    args.extend(packages);
    args.extend(["--features".to_owned(), features.join(",")]);
    if !all {
        args.extend(targets.into_iter().flat_map(|name| ["--test".to_owned(), name.to_owned()]));
    }
    Some(args)
}

/// The shop's journey on these servers.
pub(super) fn smoke(database: &str, broker: &str) -> Step {
    let mut step =
        cargo(&["run", "-p", "shop", "--", "smoke", "--database", database, "--broker", broker]);
    // The address may hold a password: it is passed, not shown.
    if let Step::Command { shown, .. } = &mut step {
        *shown = "cargo run -p shop -- smoke --database <url> --broker <url>".to_owned();
    }
    step
}

fn with_addresses(mut step: Step, servers: Option<&Servers>) -> Step {
    let (database, broker) = addresses(servers);
    if let Step::Command { command, .. } = &mut step {
        command.env(DATABASE, database).env(BROKER, broker);
    }
    step
}

fn addresses(servers: Option<&Servers>) -> (&str, &str) {
    servers.map_or(("", ""), |servers| (&servers.database, &servers.broker))
}

/// A command of this program.
fn own(args: &[&str]) -> Step {
    // Whatever runs this is there; the name alone would be looked up.
    let program = std::env::current_exe().unwrap_or_else(|_| "xtask".into());
    let mut command = Command::new(program);
    command.args(args);
    Step::Command { shown: format!("cargo xtask {}", args.join(" ")), command: Box::new(command) }
}

/// A cargo command without server addresses in its environment.
pub(super) fn cargo<S: AsRef<str>>(args: &[S]) -> Step {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let mut command = crate::process::cargo();
    command.args(&args).env_remove(DATABASE).env_remove(BROKER);
    Step::Command { shown: format!("cargo {}", args.join(" ")), command: Box::new(command) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::manifest::{GatedTest, Package};

    fn package(name: &str, feature: Option<&str>, test: Option<&str>) -> Package {
        let gated =
            |name: &str| GatedTest { name: name.to_owned(), features: vec![FEATURE.to_owned()] };
        Package {
            name: name.to_owned(),
            features: feature.map(str::to_owned).into_iter().collect(),
            gated_tests: test.map(gated).into_iter().collect(),
            ..Package::default()
        }
    }

    fn args(packages: Vec<Package>) -> Option<String> {
        let workspace = Workspace { packages, ..Workspace::default() };
        server_tests(&workspace).map(|args| args.join(" "))
    }

    #[test]
    fn packages_with_the_feature_are_run() {
        assert_eq!(args(vec![package("a", None, None), package("b", Some("other"), None)]), None);
        assert_eq!(
            args(vec![
                package("a", Some(FEATURE), Some("servers")),
                package("b", None, None),
                package("c", Some(FEATURE), Some("servers")),
            ])
            .unwrap(),
            "test --no-fail-fast -p a -p c --features a/servers,c/servers --test servers"
        );
        assert_eq!(
            args(vec![package("a", Some(FEATURE), None), package("c", Some(FEATURE), Some("s"))])
                .unwrap(),
            "test --no-fail-fast -p a -p c --features a/servers,c/servers",
            "a package without a gated target runs whole"
        );
    }
}
