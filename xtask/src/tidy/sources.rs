//! What every Rust file of the repository keeps.
//!
//! The first line says what the file is for, so that a folder can be read by
//! its first lines. `unsafe` has no place here: the lint forbids it where the
//! workspace lints reach, and this rule reads the files that they do not.

use super::Finding;
use super::source::SourceFile;

pub(super) fn check(sources: &[SourceFile], findings: &mut Vec<Finding>) {
    for source in sources {
        let first = source.text.lines().next().unwrap_or_default();
        if first.strip_prefix("//!").is_none_or(|rest| rest.trim().is_empty()) {
            findings.push(Finding {
                file: source.path.clone(),
                line: 1,
                rule: "header",
                what: "begin the file with `//! ` and what it is for".to_owned(),
            });
        }
        for (line, _) in source.identifiers().filter(|&(_, word)| word == "unsafe") {
            findings.push(Finding {
                file: source.path.clone(),
                line,
                rule: "unsafe",
                what: "no unsafe code; use a safe crate that wraps the call".to_owned(),
            });
        }
    }
}
