//! Finds mdBook, or installs it beside the build.
//!
//! One version for everybody, so that a book looks the same wherever it is built. It is
//! installed by cargo, which everyone who builds this repository has: a release archive
//! would be quicker, but is another host to trust and another platform table to keep. Only
//! the search is built in, and without optimisation: watching and serving are a few lines
//! here, and the book is small. That takes about a minute and a half of one core.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::run_command;
use crate::process::Runner;
use crate::test::Failure;

const VERSION: &str = "0.5.4";

/// The program of the right version: the one on the PATH, else the one in `target/tools`,
/// which is installed if it is missing.
pub(super) fn obtain(root: &Path, runner: &mut Runner) -> Result<PathBuf, Failure> {
    let tools = root.join("target/tools");
    let own = tools.join("bin").join("mdbook");
    if let Some(found) = [own.clone(), PathBuf::from("mdbook")].into_iter().find(|p| fits(p)) {
        return Ok(found);
    }
    println!("docs: installs mdbook {VERSION} into {}, once", tools.display());
    let mut command = crate::process::cargo();
    command
        .args(["install", "--quiet", "--locked", "--force", "--debug", "--no-default-features"])
        .args(["--features", "search", "mdbook", "--version", VERSION, "--root"])
        .arg(&tools)
        // Outside of the workspace's own build, whose lock a running test may hold.
        .env("CARGO_TARGET_DIR", tools.join("build"))
        // Nobody debugs it or builds it twice.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0");
    run_command(&mut command, runner)?;
    // What it was built from is larger than everything else and not needed again.
    let _ = std::fs::remove_dir_all(tools.join("build"));
    Ok(own)
}

fn fits(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output();
    output.is_ok_and(|output| is_version(&String::from_utf8_lossy(&output.stdout)))
}

fn is_version(said: &str) -> bool {
    said.trim().strip_prefix("mdbook v").is_some_and(|version| version == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_fits() {
        assert!(is_version(&format!("mdbook v{VERSION}\n")));
        assert!(!is_version("mdbook v0.4.40"));
        assert!(!is_version(""));
    }
}
