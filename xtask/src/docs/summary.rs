//! Every page is in the table of contents, and everything in it is a page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is wrong with the sources below `src`, one line each.
pub(super) fn check(src: &Path) -> Vec<String> {
    let summary = match fs::read_to_string(src.join("SUMMARY.md")) {
        Ok(text) => text,
        Err(error) => return vec![format!("SUMMARY.md cannot be read: {error}")],
    };
    let listed = listed(&summary);
    let mut pages = BTreeSet::new();
    for path in files(src) {
        let path = path.strip_prefix(src).unwrap_or(&path);
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.insert(path.to_string_lossy().into_owned());
        }
    }
    pages.remove("SUMMARY.md");
    let missing = pages.difference(&listed).map(|page| format!("{page} is not in SUMMARY.md"));
    let gone = listed
        .difference(&pages)
        .map(|page| format!("SUMMARY.md names {page}, which is not there"));
    missing.chain(gone).collect()
}

fn listed(summary: &str) -> BTreeSet<String> {
    let links = summary.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target.trim_start_matches("./").to_owned()).collect()
}

/// When a file below this folder was changed last.
pub(super) fn newest(folder: &Path) -> Option<SystemTime> {
    files(folder).iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok()).max()
}

/// All files below a folder; what cannot be read is left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_contents_must_agree() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
        fs::create_dir(folder.path().join("guide")).unwrap();
        write("SUMMARY.md", "# Summary\n\n- [A](a.md)\n  - [B](./guide/b.md)\n");
        write("a.md", "");
        write("guide/b.md", "");
        assert_eq!(check(folder.path()), Vec::<String>::new());
        write("guide/c.md", "");
        fs::remove_file(folder.path().join("a.md")).unwrap();
        let problems = check(folder.path());
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("guide/c.md is not in"), "{problems:?}");
        assert!(problems[1].contains("a.md, which is not there"), "{problems:?}");
    }
}
