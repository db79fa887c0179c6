//! Every feature of every crate, with the comment above it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::{FOOTER, cell, missing};

/// The page.
pub(crate) fn page(root: &Path) -> io::Result<String> {
    let mut crates: Vec<_> = fs::read_dir(root.join("crates"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    crates.sort();
    let mut text = String::from(HEAD);
    for krate in crates {
        let name = krate.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = fs::read_to_string(krate.join("Cargo.toml"))?;
        let Some((_, section)) = manifest.split_once("[features]\n") else { continue };
        // A comment speaks of all features that follow it, up to the next one.
        let (mut comment, mut used) = (String::new(), false);
        for line in section.lines().take_while(|line| !line.starts_with('[')) {
            if let Some(more) = line.strip_prefix('#') {
                if std::mem::take(&mut used) {
                    comment.clear();
                }
                comment.push_str(more);
            } else if let Some((feature, _)) = line.split_once(" = ") {
                used = true;
                if feature == "default" {
                    continue;
                }
                if comment.is_empty() {
                    return Err(missing(format!("{name}: the feature `{feature}` has no comment")));
                }
                let _ = writeln!(text, "| {name} | `{feature}` | {} |", cell(comment.trim()));
            }
        }
    }
    text.push_str(FOOTER);
    Ok(text)
}

const HEAD: &str = "\
# Features

No feature is on by itself. `chassis`, the facade, takes the crates with what a service needs, the
exporter for traces included; its own features add to that.

| crate | feature | |
|---|---|---|
";
