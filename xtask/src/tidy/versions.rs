//! One table of versions, one table of lints.
//!
//! Two versions of one dependency are two sets of types that do not fit. So
//! versions stand in the root manifest alone, and every package takes them, its
//! own version and the lints from there.

use std::path::PathBuf;

use super::Finding;
use super::manifest::{Dependency, Workspace};

pub(super) fn check(workspace: &Workspace, findings: &mut Vec<Finding>) {
    for (name, line) in &workspace.renamed {
        findings.push(Finding {
            file: PathBuf::from("Cargo.toml"),
            line: *line,
            rule: "versions",
            what: format!(
                "`{name}` renames a package, which hides it from the rules; use its own name"
            ),
        });
    }
    for package in &workspace.packages {
        let mut add = |line, rule, what| {
            findings.push(Finding { file: package.manifest.clone(), line, rule, what });
        };
        let own = |d: &&Dependency| !d.inherited && !package.is_itself(d);
        for dependency in package.dependencies.iter().filter(own) {
            let name = &dependency.name;
            let what = format!(
                "write `{name}.workspace = true` and put the version into \
                 [workspace.dependencies] of the root Cargo.toml"
            );
            add(dependency.line, "versions", what);
        }
        if let Some(line) = package.own_version {
            add(line, "versions", "write `version.workspace = true`".to_owned());
        }
        if !package.inherits_lints {
            add(1, "lints", "add `[lints]` with `workspace = true`".to_owned());
        }
    }
}
