//! What keeps the shop's services apart, and their rules pure.
//!
//! Services speak over the wire only: none names another's crate, in a manifest
//! or in code, and the contracts name no service. `domain.rs` is the business
//! rule as plain types and functions, so it mentions nothing that a framework
//! brings.

use std::path::Path;

use super::Finding;
use super::manifest::{Package, Workspace};
use super::source::SourceFile;

/// Wire types that every service may use.
const CONTRACTS: &str = "shop-contracts";

/// Names that a domain file must not mention, nor any name that continues one
/// of them with an underscore.
const NOT_IN_DOMAIN: &[&str] =
    &["async", "await", "chassis", "serde", "sqlx", "tokio", "Serialize", "Deserialize"];

pub(super) fn check(workspace: &Workspace, sources: &[SourceFile], findings: &mut Vec<Finding>) {
    let packages: Vec<&Package> = workspace.packages.iter().filter(|p| is_context(p)).collect();
    let services: Vec<&str> =
        packages.iter().map(|p| p.name.as_str()).filter(|&name| name != CONTRACTS).collect();
    for package in packages {
        let own = package.name.as_str();
        let folder = package.manifest.parent().unwrap_or(Path::new(""));
        for dependency in &package.dependencies {
            if dependency.name != own && services.contains(&dependency.name.as_str()) {
                findings.push(neighbour(&package.manifest, dependency.line, own, &dependency.name));
            }
        }
        for source in sources.iter().filter(|source| source.path.starts_with(folder)) {
            for (line, identifier) in source.identifiers() {
                let other = services.iter().find(|service| service.replace('-', "_") == identifier);
                if let Some(other) = other.filter(|&&other| other != own) {
                    findings.push(neighbour(&source.path, line, own, other));
                }
            }
            if source.path.strip_prefix(folder).is_ok_and(is_domain) {
                domain(source, findings);
            }
        }
    }
}

/// A context is a package in a folder of its own below `examples/shop`; the
/// package `shop` itself puts them together and may name them all.
fn is_context(package: &Package) -> bool {
    package.manifest.starts_with("examples/shop") && package.manifest.iter().count() > 3
}

fn is_domain(path: &Path) -> bool {
    path == Path::new("src/domain.rs") || path.starts_with("src/domain")
}

fn neighbour(file: &Path, line: usize, own: &str, other: &str) -> Finding {
    Finding {
        file: file.to_path_buf(),
        line,
        rule: "neighbours",
        what: format!(
            "`{own}` names `{other}`; services speak over the wire only: call it by service name \
             with the types of `{CONTRACTS}`"
        ),
    }
}

fn domain(source: &SourceFile, findings: &mut Vec<Finding>) {
    for (line, identifier) in source.identifiers() {
        let named = NOT_IN_DOMAIN.iter().any(|name| {
            identifier
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        });
        if named {
            findings.push(Finding {
                file: source.path.clone(),
                line,
                rule: "domain",
                what: format!(
                    "`{identifier}` in a domain file; move it to the use case, the store or the api"
                ),
            });
        }
    }
}
