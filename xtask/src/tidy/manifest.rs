//! The workspace as its manifests describe it.
//!
//! `cargo metadata` would answer too, but it resolves the whole graph and fails
//! on a manifest that is wrong. The rules want to name the line that is wrong,
//! so the manifests are read as text with positions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Finding, unreadable};

/// Every package of the repository and the tables of the root manifest.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The packages, sorted by path.
    pub(crate) packages: Vec<Package>,
    /// `[workspace.metadata.floors]`: package, floor (`None`: not a number) and
    /// line in the root manifest.
    pub(crate) floors: BTreeMap<String, (Option<i64>, usize)>,
    /// Entries of `[workspace.dependencies]` whose name is not the package's.
    pub(crate) renamed: Vec<(String, usize)>,
}

/// One package.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// Its manifest, relative to the repository.
    pub(crate) manifest: PathBuf,
    /// Its name.
    pub(crate) name: String,
    /// The names of its features.
    pub(crate) features: Vec<String>,
    /// Its `[[test]]` targets that need features.
    pub(crate) gated_tests: Vec<GatedTest>,
    pub(crate) dependencies: Vec<Dependency>,
    /// Line of a version that does not come from the workspace.
    pub(crate) own_version: Option<usize>,
    pub(crate) inherits_lints: bool,
}

/// A test target that is built only with certain features.
#[derive(Debug)]
pub(crate) struct GatedTest {
    /// The target's name.
    pub(crate) name: String,
    /// The features that it needs.
    pub(crate) features: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) line: usize,
    /// Whether it is taken from the workspace's table.
    pub(crate) inherited: bool,
}

impl Workspace {
    /// Reads the manifests among `files`, paths relative to `root`.
    pub(crate) fn load(root: &Path, files: &[PathBuf]) -> (Self, Vec<Finding>) {
        let mut workspace = Self::default();
        let mut findings = Vec::new();
        for path in files.iter().filter(|path| path.ends_with("Cargo.toml")) {
            let text = match fs::read_to_string(root.join(path)) {
                Ok(text) => text,
                Err(error) => {
                    findings.push(unreadable(path, 1, &error));
                    continue;
                }
            };
            match DeTable::parse(&text) {
                Ok(table) => workspace.add(path, &text, table.get_ref()),
                Err(error) => {
                    let line = error.span().map_or(1, |span| line_of(&text, span.start));
                    findings.push(unreadable(path, line, &error.message()));
                }
            }
        }
        (workspace, findings)
    }

    /// Reads the manifests of the repository at `root`; what cannot be read is
    /// left out.
    pub(crate) fn read(root: &Path) -> Self {
        let (files, _) = super::walk(root);
        Self::load(root, &files).0
    }

    /// The package of this name.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    fn add(&mut self, path: &Path, text: &str, table: &DeTable<'_>) {
        if let Some(metadata) = sub(table, "workspace").and_then(|t| sub(t, "metadata"))
            && let Some(floors) = sub(metadata, "floors")
        {
            for (name, floor) in floors {
                let number = floor.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
                let line = line_of(text, name.span().start);
                self.floors.insert(name.get_ref().to_string(), (number, line));
            }
        }
        let shared = sub(table, "workspace").and_then(|t| sub(t, "dependencies"));
        for (name, value) in shared.into_iter().flatten() {
            if value.get_ref().as_table().is_some_and(|entry| get(entry, "package").is_some()) {
                let line = line_of(text, name.span().start);
                self.renamed.push((name.get_ref().to_string(), line));
            }
        }
        if sub(table, "package").is_some() {
            self.packages.push(Package::from_table(path, text, table));
        }
    }
}

impl Package {
    /// Whether the dependency is the package itself, by which its tests turn on
    /// its features.
    pub(crate) fn is_itself(&self, dependency: &Dependency) -> bool {
        dependency.kind == Kind::Dev && dependency.name == self.name
    }

    fn from_table(path: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let mut package = Self { manifest: path.to_path_buf(), ..Self::default() };
        if let Some(head) = sub(table, "package") {
            package.name = string(head, "name").unwrap_or_default();
            package.own_version = get(head, "version")
                .filter(|version| version.get_ref().is_str())
                .map(|version| line_of(text, version.span().start));
        }
        package.inherits_lints = sub(table, "lints").is_some_and(inherits);
        if let Some(features) = sub(table, "features") {
            package.features = features.keys().map(|key| key.get_ref().to_string()).collect();
        }
        if let Some(tests) = get(table, "test").and_then(|tests| tests.get_ref().as_array()) {
            let targets = tests.iter().filter_map(|test| test.get_ref().as_table());
            package.gated_tests = targets.filter_map(gated_test).collect();
        }
        package.add_dependencies(text, table);
        for target in sub(table, "target").into_iter().flat_map(|targets| targets.values()) {
            if let Some(target) = target.get_ref().as_table() {
                package.add_dependencies(text, target);
            }
        }
        package
    }

    fn add_dependencies(&mut self, text: &str, table: &DeTable<'_>) {
        let sections = [
            ("dependencies", Kind::Normal),
            ("build-dependencies", Kind::Build),
            ("dev-dependencies", Kind::Dev),
        ];
        for (section, kind) in sections {
            for (name, value) in sub(table, section).into_iter().flatten() {
                self.dependencies.push(Dependency {
                    name: name.get_ref().to_string(),
                    kind,
                    line: line_of(text, name.span().start),
                    inherited: value.get_ref().as_table().is_some_and(inherits),
                });
            }
        }
    }
}

fn gated_test(table: &DeTable<'_>) -> Option<GatedTest> {
    let features = get(table, "required-features")?.get_ref().as_array()?;
    let features = features.iter().filter_map(|feature| feature.get_ref().as_str());
    Some(GatedTest {
        name: string(table, "name")?,
        features: features.map(str::to_owned).collect(),
    })
}

fn inherits(table: &DeTable<'_>) -> bool {
    get(table, "workspace").and_then(|value| value.get_ref().as_bool()) == Some(true)
}

fn get<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

fn sub<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<&'a DeTable<'i>> {
    get(table, key)?.get_ref().as_table()
}

fn string(table: &DeTable<'_>, key: &str) -> Option<String> {
    get(table, key)?.get_ref().as_str().map(str::to_owned)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}
