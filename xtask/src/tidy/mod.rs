//! The rules of the house, checked by a program.
//!
//! A rule that only a document states is broken within a month. Each rule here
//! is an absence that a reader can rely on: "no crate uses a higher floor", "no
//! business noun below `examples/`". The rules read manifests and source text;
//! they compile nothing, so the whole check takes a fraction of a second.
//!
//! Source text is read after comments and literals are blanked out (`source.rs`):
//! a rule is about what the code does, and a comment may speak of an order of
//! lines as much as it likes.

pub(crate) mod manifest;
mod source;

mod floors;
mod nouns;
mod shop;
mod sources;
mod versions;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use manifest::Workspace;
use source::SourceFile;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the repository.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The rule's short name, as ARCHITECTURE.md uses it.
    pub rule: &'static str,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what } = self;
        write!(f, "{}:{line}: [{rule}] {what}", file.display())
    }
}

/// Checks the repository at `root` and returns every broken rule, sorted by
/// place. A file that cannot be read or parsed is a finding too.
pub fn check(root: &Path) -> Vec<Finding> {
    let (files, mut findings) = walk(root);
    let (workspace, unreadable) = Workspace::load(root, &files);
    findings.extend(unreadable);
    let (sources, unreadable) = SourceFile::load(root, &files);
    findings.extend(unreadable);

    floors::check(&workspace, &mut findings);
    versions::check(&workspace, &mut findings);
    nouns::check(&sources, &mut findings);
    shop::check(&workspace, &sources, &mut findings);
    sources::check(&sources, &mut findings);

    findings.sort();
    findings.dedup();
    findings
}

/// Runs [`check`], prints the findings and gives the exit code.
pub fn report(root: &Path) -> ExitCode {
    let findings = check(root);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: all rules hold");
            ExitCode::SUCCESS
        }
        1 => {
            println!("tidy: 1 finding");
            ExitCode::FAILURE
        }
        n => {
            println!("tidy: {n} findings");
            ExitCode::FAILURE
        }
    }
}

/// Every manifest and Rust file below `root`, relative to it. Hidden folders
/// and build output are left out; symbolic links are not followed.
fn walk(root: &Path) -> (Vec<PathBuf>, Vec<Finding>) {
    let mut files = Vec::new();
    let mut findings = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) => {
                findings.push(unreadable(&folder, 1, &error));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with('.');
            let path = folder.join(&name);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !hidden && name != "target" => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    let rust = path.extension().is_some_and(|extension| extension == "rs");
                    if rust || name == "Cargo.toml" {
                        files.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    files.sort();
    (files, findings)
}

fn unreadable(file: &Path, line: usize, error: &dyn fmt::Display) -> Finding {
    Finding {
        file: file.to_path_buf(),
        line,
        rule: "readable",
        what: format!("cannot be read: {error}"),
    }
}
